"""A bundle's folder: checked whole, byte for byte, before anything of it is used.

onnxruntime does not notice damaged weights, and genai_config.json may name a library to load. So a session opens only
after the folder was found to hold what the manifest lists and nothing else, and that file no key outside an allowlist.
docs/bundle-format.md describes the folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from tokenizers import Tokenizer

from dualtune_edge.runtime.bundle.checks import check_genai_config, check_paths, check_references, damaged
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.cache.verified_files import hash_changed
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.bundle.manifest import (
    MANIFEST,
    MODEL_DIR,
    PRIMARY,
    SEAL,
    VARIANTS_DIR,
    FileEntry,
    Manifest,
    ModelEntry,
    Stage,
    ToolsetEntry,
)
from dualtune_edge.toolkit.bundle.parity import PARITY, ParityReport
from dualtune_edge.toolkit.bundle.verification import SIMULATED, Verification
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.prompts.prompter import PromptPlan
from dualtune_edge.toolkit.validation import listing, nearest, validate

_TOKENIZER: Final = f"{MODEL_DIR}/tokenizer.json"
_GENAI_CONFIG: Final = "genai_config.json"
_CHAT_TEMPLATE: Final = f"{MODEL_DIR}/chat_template.jinja"
_TOKENIZER_CONFIG: Final = f"{MODEL_DIR}/tokenizer_config.json"
Verify = Literal["always", "once", "never"]  # which files `open_bundle` hashes
_MOUNT_POINT: Final = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT: a junction, Windows' other kind of link


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, seen through one of its models. What it holds besides the manifest is read at first use."""

    root: Path
    manifest: Manifest
    chosen: str = PRIMARY  # name of the model

    def on(self, model: str) -> Bundle:
        """The same bundle, seen through the model of that name."""
        return replace(self, chosen=model)

    @cached_property
    def entry(self) -> ModelEntry:
        """The model that it is seen through."""
        return self.manifest.model(self.chosen)

    def state_of(self, stage: Stage) -> str | None:
        """Path of the KV state of the stage's prefix, by this model; None: there is none."""
        return self.entry.stage_states.get(stage.prompt)

    @cached_property
    def tokenizer_json(self) -> str:
        """The text of tokenizer.json."""
        return (self.root / _TOKENIZER).read_text(encoding="utf-8")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer."""
        try:
            return Tokenizer.from_str(self.tokenizer_json)
        except Exception as error:  # noqa: BLE001 - tokenizers raises a plain Exception
            raise damaged(self.root / _TOKENIZER, found=str(error), expected="a tokenizer") from None

    @cached_property
    def chat_template(self) -> str | None:
        """The base's own chat template; None: it has none."""
        if (file := self.root / _CHAT_TEMPLATE).is_file():
            return file.read_text(encoding="utf-8")
        path = self.root / _TOKENIZER_CONFIG
        written = _read_json(path) if path.is_file() else None
        template = written.get("chat_template") if isinstance(written, dict) else None
        return template if isinstance(template, str) else None

    @property
    def model(self) -> ModelSource:
        """What an engine opens."""
        return ModelSource.of(self.manifest.base, self.root, self.entry, self.manifest.files)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        manifest = self.manifest
        return sum(file.size for file in manifest.files) + len(manifest.to_bytes()) + len(manifest.seal())

    @cached_property
    def parity(self) -> ParityReport | None:
        """How far the model's graphs are from PEFT; None: it was exported before this was told.

        Raises:
            BundleError: the file is no such report.

        """
        name = PARITY if self.chosen == PRIMARY else f"{VARIANTS_DIR}/{self.chosen}/{PARITY}"
        if all(file.path != name for file in self.manifest.files):
            return None
        path = self.root / name
        return validate(ParityReport, _read_json(path), where=str(path), error=BundleError)

    @cached_property
    def simulation(self) -> Verification | None:
        """What `verify` found of the model, by simulation; None: it was not run.

        Raises:
            BundleError: the file is no such report.

        """
        name = f"{VARIANTS_DIR}/{self.chosen}/{SIMULATED}"
        if all(file.path != name for file in self.manifest.files):
            return None
        path = self.root / name
        return validate(Verification, _read_json(path), where=str(path), error=BundleError)

    def plan(self, stage: Stage) -> PromptPlan:
        """The prompt of a stage.

        Raises:
            BundleError: the file is not a prompt.

        """
        path = self.root / stage.prompt
        return validate(PromptPlan, _read_json(path), where=str(path), error=BundleError)

    def toolset(self, name: str) -> ToolsetEntry:
        """The toolset of that name.

        Raises:
            BundleError: there is none.

        """
        known = {entry.toolset.name: entry for entry in self.manifest.toolsets}
        if name not in known:
            raise BundleError(
                f"toolset {name!r}",
                found="no toolset of this name in the bundle",
                expected=listing(known),
                fix=nearest(name, known),
            )
        return known[name]


def open_bundle(path: Path | str, *, verify: Verify = "always") -> Bundle:
    """Open a bundle's folder.

    Args:
        path: the folder.
        verify: "always": every file is hashed (about a second a GiB). "once": but for those that were hashed before, in
            this process or another, and have not changed since (`verified_files`). "never": names and sizes are
            checked only, for a bundle that this process has verified before.

    Raises:
        BundleError: no bundle, another version, damaged, or one that reaches outside its folder.

    """
    root = Path(path)
    manifest = _read_manifest(root)
    check_paths(manifest, root)
    check_references(manifest, root)
    _check_folder(manifest, root)
    if verify == "always":
        for entry in manifest.files:
            _check_hash(root, entry)
    elif verify == "once":
        entries = {entry.path: entry for entry in manifest.files}
        digest = hashlib.sha256(manifest.seal()).hexdigest()
        hash_changed(root, digest, entries, lambda name: _check_hash(root, entries[name]))
    for entry in manifest.files:
        if entry.path.endswith(f"/{_GENAI_CONFIG}"):
            check_genai_config(_read_json(root / entry.path), root / entry.path)
    return Bundle(root, manifest)


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not _is_plain(path):
        raise BundleError(
            str(root),
            found=f"no {MANIFEST}",
            expected="a bundle's folder, as `export` writes it",
            fix="Check the path.",
        )
    manifest = validate(Manifest, _read_json(path), where=str(path), error=BundleError)
    if manifest.to_bytes() != path.read_bytes():
        raise damaged(path, found="bytes that are not canonical", expected="what `export` wrote")
    seal = root / SEAL
    if not _is_plain(seal) or seal.read_bytes() != manifest.seal():
        raise damaged(seal, found="another hash, or none", expected=manifest.seal().decode().strip())
    return manifest


def _read_json(path: Path) -> strict_json.Json:
    try:
        if path.stat().st_size > limits.JSON_BYTES:
            raise damaged(path, found=f"{path.stat().st_size} bytes", expected=f"at most {limits.JSON_BYTES}")
        return strict_json.loads(path.read_bytes())
    except (OSError, strict_json.JsonError) as error:
        raise damaged(path, found=str(error), expected="JSON") from None


def _check_folder(manifest: Manifest, root: Path) -> None:
    """Exactly the listed files, each plain and of its size."""
    expected = {entry.path: entry.size for entry in manifest.files}
    found = dict(_files(root))
    del found[MANIFEST], found[SEAL]
    for path in sorted(expected.keys() - found.keys()):
        raise damaged(root / path, found="no such file", expected="the file that the manifest lists")
    for path in sorted(found.keys() - expected.keys()):
        raise damaged(root / path, found="a file that the manifest does not list", expected="the listed files only")
    for path, size in sorted(expected.items()):
        if found[path] != size:
            raise damaged(root / path, found=f"{found[path]} bytes", expected=f"{size}")


def _files(root: Path) -> Iterator[tuple[str, int]]:
    """(path, size) of every file below `root`; a link or device anywhere is refused. Hard links are plain files."""
    folders = [root]
    while folders:
        try:
            entries = sorted(folders.pop().iterdir())
        except OSError as error:
            raise damaged(root, found=str(error), expected="a folder that can be read") from None
        for path in entries:
            status = path.lstat()
            if _is_folder(status):
                folders.append(path)
            elif _is_plain(path):
                yield path.relative_to(root).as_posix(), status.st_size
            else:
                raise damaged(path, found="a link or a device", expected="plain files and folders")


def _is_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and getattr(status, "st_reparse_tag", 0) != _MOUNT_POINT


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _check_hash(root: Path, entry: FileEntry) -> None:
    path = root / entry.path
    try:
        found = sha256_file(path)
    except OSError as error:
        raise damaged(path, found=str(error), expected="a file that can be read") from None
    if found != entry.sha256:
        raise damaged(path, found=f"SHA-256 {found}", expected=entry.sha256)
