"""A bundle's folder: checked whole, byte for byte, before anything of it is used.

onnxruntime does not notice damaged weights, and genai_config.json may name a library to load. So a session opens only
after the folder was found to hold what the manifest lists and nothing else, and that file no key outside an allowlist.
docs/bundle-format.md describes the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, get_args

from dualtune_edge.runtime.bundle.checks import check_genai_config, check_paths, check_references, compare_hash, damaged
from dualtune_edge.runtime.bundle.contents import check_contents, read_manifest
from dualtune_edge.runtime.bundle.current import is_store, lease_current
from dualtune_edge.runtime.bundle.folder import TOKENIZER, Bundle
from dualtune_edge.runtime.bundle.graph_checks import graph_faults
from dualtune_edge.runtime.bundle.plain_files import sha256_plain
from dualtune_edge.runtime.bundle.signed import Trusted
from dualtune_edge.runtime.cache.verified_files import hash_changed
from dualtune_edge.runtime.trust.policy import Trust, TrustPolicy, read_trust
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.prompts.tokenizer_file import tokenizer_faults
from dualtune_edge.toolkit.validation import listing

Verify = Literal["always", "once", "never"]  # which files `open_bundle` hashes
_GENAI_CONFIG: Final = "genai_config.json"
_CHECKS: Final = b"2"  # a new number where a file that passed before might not pass now
_GRAPH: Final = ".onnx"  # how a graph's file ends


def open_bundle(path: Path | str, *, verify: Verify = "always", trust: Trust | None = None) -> Bundle:
    """Open a bundle's folder, or the current version of a store.

    Args:
        path: the folder of either. A version stays in the store as long as the bundle is referred to.
        verify: "always": every file is hashed (about a second a GiB). "once": but for those that were hashed before, in
            this process or another, and have not changed since (`verified_files`). "never": names and sizes are
            checked only, for a bundle that this process has verified before.
        trust: the trust policy, or its file; by default that which $DUALTUNE_EDGE_TRUST names, if any.

    Raises:
        BundleError: no bundle, another version, damaged, or one that reaches outside its folder.
        StoreError: a damaged store.
        TrustError: the policy does not trust its signature, or asks for one and there is none; or it cannot be read.
        MissingExtraError: a signature is to be verified, and the extra `trust` is not installed.

    """
    if verify not in get_args(Verify):
        expected = listing(get_args(Verify))
        raise BundleError("verify", found=repr(verify), expected=expected, fix="Use one of them.")
    try:
        root, lease = Path(path), None
    except TypeError:
        raise BundleError(
            "path",
            found=f"{type(path).__name__} {path!r:.80}",
            expected="a folder's path",
            fix="Pass a text or a Path.",
        ) from None
    if is_store(root):
        root, lease = lease_current(root)
    return replace(open_signed(root, read_trust(trust), verify=verify), lease=lease)


def open_signed(
    root: Path, policy: TrustPolicy | None, *, verify: Verify = "always", signature: Path | None = None
) -> Bundle:
    """Open a bundle's folder, as `open_bundle` does.

    Args:
        root: the folder.
        policy: the trust policy; None: a signature counts for nothing.
        verify: which files are hashed first.
        signature: the file of the signature; by default that in the folder.

    Raises:
        BundleError, TrustError, MissingExtraError: as for `open_bundle`.

    """
    trusted = None if policy is None else Trusted.of(root, policy, signature)
    manifest = read_manifest(root, trusted)
    check_paths(manifest, root)
    check_references(manifest, root)
    check_contents(manifest, root)
    bundle = Bundle(root, manifest, signer=trusted.signer if trusted else None)
    check = _Check(bundle)
    if verify == "always":
        for entry in manifest.files:
            check(entry.path)
    elif verify == "once":
        digest = hashlib.sha256(_CHECKS + manifest.seal()).hexdigest()
        hash_changed(root, digest, [entry.path for entry in manifest.files], check)
    return bundle


class _Check:
    """Hashes a file of a bundle, and looks into it where what it says could do harm though its hash is right."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, files = bundle, bundle.manifest.files
        self._entries = {entry.path: entry for entry in files}
        self._stages = {stage.prompt: stage for stage in bundle.manifest.stages}

    def __call__(self, name: str) -> None:
        path = self._bundle.root / name
        if name in self._stages:
            self._bundle.plan(self._stages[name])
        elif name.endswith(f"/{_GENAI_CONFIG}"):
            check_genai_config(self._bundle.read_json(name), path)
        elif name == TOKENIZER or name.endswith(_GRAPH):
            for fault in self._faults(name):
                raise damaged(path, found=fault, expected="only what `export` writes")
        else:
            try:
                digest = sha256_plain(path)
            except OSError as error:
                raise damaged(path, found=str(error), expected="a file that can be read") from None
            compare_hash(path, digest, self._entries[name])

    def _faults(self, name: str) -> Iterator[str]:
        data = self._bundle.read(name)
        if name == TOKENIZER:
            yield from tokenizer_faults(data)
        else:
            folder = f"{name.rpartition('/')[0]}/"
            beside = (path.removeprefix(folder) for path in self._entries if path.startswith(folder))
            yield from graph_faults(data, frozenset(beside))
