"""A pack goes to a real registry and back, and what the registry has is not sent again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from export_desk import Exported
from registry import INSTALLED, copy_image, serve_registry
from releases import pack_release, release
from signatures import TestKey, policy

from dualtune_edge.export.release.difference import difference
from dualtune_edge.export.release.documents import describe_bundle
from dualtune_edge.export.release.pack import pack_bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.store.install import install
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.errors import BundleError

pytestmark = pytest.mark.skipif(not INSTALLED, reason="docker-registry and skopeo are not installed")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with serve_registry(tmp_path) as served:
        yield served


def test_pushed_pulled_and_installed(external: Exported, registry: tuple[str, Path], tmp_path: Path) -> None:
    key = TestKey()
    address, log = registry
    packs = [pack_release(external.bundle, tmp_path, version, key=key) for version in (1, 2)]
    for version, pack in enumerate(packs, start=1):
        before = log.read_text(encoding="utf-8").count("PATCH")
        copy_image(f"oci-archive:{pack}:{version}", f"docker://{address}/helper:{version}")
        sent = log.read_text(encoding="utf-8").count("PATCH") - before
    changed = [file for file in difference(*packs).files if file.moved]
    assert sent == len(changed) == 4  # the manifest, its hash, the signature, and what differs
    for version in (1, 2):
        copy_image(f"docker://{address}/helper:{version}", f"oci:{tmp_path}/pulled-{version}:{version}")
        install(tmp_path / f"pulled-{version}", tmp_path / "store", policy(key.trusted()))
    assert open_bundle(tmp_path / "store", trust=policy(key.trusted())).manifest.release
    assert difference(packs[1], tmp_path / "store").files == ()


def test_documents_are_pushed_under_their_tags(external: Exported, registry: tuple[str, Path], tmp_path: Path) -> None:
    address, _ = registry
    bundle = release(external.bundle, tmp_path / "bundle", Release(product="helper", version=7))
    documents, pack = tmp_path / "documents", tmp_path / "helper.tar"
    describe_bundle(bundle, documents, spec=None, evaluation=None, builder=None)
    pack_bundle(bundle, pack, layout=False, documents=documents)
    for tag in ("7", "7-sbom", "7-provenance", "7-card"):
        copy_image(f"oci-archive:{pack}:{tag}", f"docker://{address}/helper:{tag}")
    copy_image(f"docker://{address}/helper:7", f"oci:{tmp_path}/pulled:7")
    install(tmp_path / "pulled", tmp_path / "store", None)
    copy_image(f"docker://{address}/helper:7-sbom", f"oci:{tmp_path}/sbom:7")
    (blob,) = (path for path in (tmp_path / "sbom" / "blobs" / "sha256").iterdir() if b"CycloneDX" in path.read_bytes())
    assert blob.read_bytes() == (documents / "sbom.cdx.json").read_bytes()
    with pytest.raises(BundleError):  # a document is no bundle
        install(tmp_path / "sbom", tmp_path / "other store", None)
