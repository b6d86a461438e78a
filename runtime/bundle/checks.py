"""What a manifest and a genai_config.json may say: paths in the folder, names that exist, nothing that loads code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dualtune_edge.runtime.bundle.variant_checks import variant_faults
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.layout import MANIFEST, MODEL_DIR, SEAL, SIGNATURE
from dualtune_edge.toolkit.bundle.manifest import FileEntry, Manifest
from dualtune_edge.toolkit.errors import BundleError

# Names that every system takes literally: no drive, no stream, no `..`, no separator of Windows, no control character.
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

# The whole of what a genai_config.json may hold: key → what stands below. None: a number, a text or a list of numbers.
_NAMES: Final[Mapping[str, Any]] = {"*": None}  # of graph inputs and outputs
_GENAI_CONFIG: Final[Mapping[str, Any]] = {
    "model": {
        **dict.fromkeys(("bos_token_id", "context_length", "eos_token_id", "pad_token_id", "type", "vocab_size")),
        "decoder": {
            **dict.fromkeys(("filename", "head_size", "hidden_size")),
            **dict.fromkeys(("num_attention_heads", "num_hidden_layers", "num_key_value_heads")),
            "inputs": _NAMES,
            "outputs": _NAMES,
            "session_options": dict.fromkeys(("log_id", "log_severity_level", "provider_options")),
        },
    },
    "search": dict.fromkeys(
        (
            "do_sample", "early_stopping", "length_penalty", "max_length", "min_length", "num_beams",
            "num_return_sequences", "past_present_share_buffer", "repetition_penalty", "temperature", "top_k", "top_p",
        )
    ),
}  # fmt: skip


def damaged(path: Path, *, found: str, expected: str) -> BundleError:
    """The error of a bundle that is not as it was exported."""
    return BundleError(str(path), found=found, expected=expected, fix="Copy the bundle again, or export it again.")


def compare_hash(path: Path, digest: str, entry: FileEntry) -> None:
    """Refuse a file whose SHA-256 is not the listed one."""
    if digest != entry.sha256:
        raise damaged(path, found=f"SHA-256 {digest}", expected=entry.sha256)


def is_plain(path: str) -> bool:
    """Whether a path leads below a folder, and every system takes its names literally."""
    return all(_NAME.fullmatch(part) and not _DEVICE.fullmatch(part) for part in path.split("/"))


def check_paths(manifest: Manifest, root: Path) -> None:
    """Every listed path is a plain name below the folder, once.

    Raises:
        BundleError: one is not.

    """
    path = root / MANIFEST
    if len(manifest.files) > limits.BUNDLE_FILES:
        raise damaged(path, found=f"{len(manifest.files)} files", expected=f"at most {limits.BUNDLE_FILES}")
    seen = {MANIFEST, SEAL, SIGNATURE}
    for entry in manifest.files:
        if not is_plain(entry.path):
            raise damaged(path, found=f"the path {entry.path!r}", expected="paths below the folder, of plain names")
        if entry.path.casefold() in seen:
            raise damaged(path, found=f"the path {entry.path!r} twice", expected="each file once")
        if entry.size < 0 or not _SHA256.fullmatch(entry.sha256):
            raise damaged(path, found=f"size or hash of {entry.path!r}", expected="bytes and a SHA-256 in hex")
        seen.add(entry.path.casefold())


def check_references(manifest: Manifest, root: Path) -> None:
    """Every prompt, adapter, tool and graph that the manifest speaks of is in it.

    Raises:
        BundleError: one is not.

    """
    for fault in _faults(manifest):
        raise damaged(root / MANIFEST, found=fault, expected="a manifest that agrees with itself")


def _faults(manifest: Manifest) -> Iterator[str]:
    files = {entry.path: entry.sha256 for entry in manifest.files}
    needed = [f"{MODEL_DIR}/{name}" for name in ("model.onnx", "tokenizer.json", "genai_config.json")]
    for adapter in manifest.adapters:
        if adapter.mode == "external":
            needed.append(adapter.path)
        else:
            needed += [f"{adapter.path}/{name}" for name in ("model.onnx", "genai_config.json")]
    needed += [stage.prompt for stage in manifest.stages]
    yield from (f"no {path!r} among the files" for path in needed if path not in files)
    yield from _state_faults(manifest)
    if files.get(f"{MODEL_DIR}/tokenizer.json") != manifest.tokenizer.fingerprint:
        yield "a tokenizer.json that is not the tokenizer's"
    adapters = [adapter.name for adapter in manifest.adapters]
    yield from _twice("adapters", adapters)
    for stage in manifest.stages:
        if stage.adapter is not None and stage.adapter not in adapters:
            yield f"a stage with adapter {stage.adapter!r}, which is not there"
    yield from _toolset_faults(manifest)
    yield from _number_faults(manifest)
    if manifest.profile is not None and (not is_plain(manifest.profile) or manifest.profile.endswith(".toml")):
        yield f"the profile {manifest.profile!r}, which is no name"
    yield from variant_faults(manifest)


def _state_faults(manifest: Manifest) -> Iterator[str]:
    sizes = {entry.path: entry.size for entry in manifest.files}
    states = [entry.path for entry in manifest.states]
    yield from _twice("prefix states", states)
    for entry in manifest.states:
        if min(entry.key.shape) < 1 or sizes.get(entry.path) != entry.nbytes:
            yield f"{entry.path!r} of {sizes.get(entry.path)} bytes for the shape {list(entry.key.shape)}"
    for stage in manifest.stages:
        if stage.state is not None and stage.state not in states:
            yield f"a stage with prefix state {stage.state!r}, which is not there"


def _toolset_faults(manifest: Manifest) -> Iterator[str]:
    names = [entry.toolset.name for entry in manifest.toolsets]
    yield from _twice("toolsets", names)
    if (manifest.toolset_choice is None) != (len(names) == 1):
        yield f"{len(names)} toolsets and {'no' if manifest.toolset_choice is None else 'a'} choice among them"
    yield from _twice("stages with prompt", [stage.prompt for stage in manifest.stages])
    for entry in manifest.toolsets:
        tools = entry.toolset.tools
        yield from _twice("tools", [manifest.no_tool, *(tool.name for tool in tools)])
        if set(entry.arguments) != {tool.name for tool in tools if tool.takes_arguments}:
            yield f"toolset {entry.toolset.name!r} with other stages than its tools need"


def _number_faults(manifest: Manifest) -> Iterator[str]:
    """What an engine allocates by, before it has looked at a graph."""
    base = manifest.base
    numbers = [("context_length", base.context_length, limits.CONTEXT_TOKENS)]
    numbers += [("vocab_size", size, limits.VOCABULARY) for size in (base.vocab_size, manifest.tokenizer.vocab_size)]
    numbers += [("end_of_turn", token + 1, base.vocab_size) for token in base.end_of_turn]
    for entry in (manifest.primary, *manifest.models):
        cache, graph = entry.cache, entry.graph
        numbers += [("layers", cache.layers, limits.LAYERS), ("heads", cache.heads, limits.HEADS)]
        numbers += [("head_dim", cache.head_dim, limits.HEAD_DIM)]
        numbers += [("rank", adapter.rank, limits.RANK) for adapter in entry.adapters]
        invocations = [token for adapter in entry.adapters for token in adapter.invocation or ()]
        numbers += [("invocation", token + 1, base.vocab_size) for token in invocations]
        if graph.form == "static":
            numbers += [("kv_length", graph.kv_length, limits.CONTEXT_TOKENS)]
    for name, number, most in numbers:
        if not 1 <= number <= most:
            yield f"{name} {str(number)[:40]}, which is not from 1 to {most}"


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    yield from (f"two {what} named {name!r}" for name in sorted(set(names)) if names.count(name) > 1)


def check_genai_config(value: Any, path: Path) -> None:
    """No key outside the allowlist, no execution provider, and the one graph file.

    Raises:
        BundleError: the file says more to onnxruntime-genai than where the graph's inputs are.

    """
    for fault in _config_faults(value, _GENAI_CONFIG, ""):
        raise BundleError(
            str(path), found=fault, expected="only what `export` writes: it cannot load code", fix="Export it again."
        )
    decoder = value["model"]["decoder"] if "decoder" in value.get("model", {}) else {}
    options = decoder.get("session_options", {})
    if decoder.get("filename") != "model.onnx" or options.get("provider_options", []) != []:
        raise BundleError(
            str(path),
            found="another graph or an execution provider",
            expected="model.onnx on the CPU",
            fix="Export it again.",
        )


def _config_faults(value: Any, allowed: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where or 'the file'} that is no object"
        return
    for key, item in value.items():
        below = allowed.get(key, allowed.get("*", ...))
        if below is ...:
            yield f"the key {where}{key}"
        elif below is not None:
            yield from _config_faults(item, below, f"{where}{key}.")
        elif isinstance(item, dict) or (
            isinstance(item, list) and any(isinstance(value, (dict, list)) for value in item)
        ):
            yield f"an object at {where}{key}"
