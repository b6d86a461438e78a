"""A pack holds every file of a bundle once, and is the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_desk import Exported
from releases import release
from signatures import TestKey, hashes_of, sign

from dualtune_edge import cli
from dualtune_edge.export.release import pack as packing
from dualtune_edge.export.release.difference import difference
from dualtune_edge.export.release.pack import pack_bundle
from dualtune_edge.runtime.store.install import install
from dualtune_edge.runtime.store.pack import open_pack
from dualtune_edge.toolkit.bundle import tar
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.errors import BundleError, OutputError

SEVEN = Release(product="helper", version=7)


@pytest.fixture
def bundle(mixed: Exported, tmp_path: Path) -> Path:
    made = release(mixed.bundle, tmp_path / "bundle", SEVEN)
    sign(made, TestKey())
    return made


def unpacked(path: Path) -> dict[str, str]:
    """Path → SHA-256 of every file in a pack."""
    with open_pack(path) as pack:
        return {name: hashlib.sha256(b"".join(pack.pieces(name))).hexdigest() for name in pack.files}


def digests(bundle: Path) -> dict[str, str]:
    signature = hashlib.sha256((bundle / "model.sig").read_bytes()).hexdigest()
    return hashes_of(bundle) | {"model.sig": signature}


@pytest.mark.parametrize("layout", [True, False])
def test_a_pack_holds_the_bundle(bundle: Path, tmp_path: Path, *, layout: bool) -> None:
    packed = pack_bundle(bundle, tmp_path / "pack", layout=layout)
    assert packed.signed
    assert unpacked(tmp_path / "pack") == digests(bundle)


def test_the_same_bytes_each_time(bundle: Path, tmp_path: Path) -> None:
    again = shutil.copytree(bundle, tmp_path / "elsewhere" / "again")
    for folder, name in ((bundle, "one"), (again, "other")):
        pack_bundle(folder, tmp_path / name, layout=False)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_it_is_an_oci_image_layout(bundle: Path, tmp_path: Path) -> None:
    packed = pack_bundle(bundle, tmp_path / "pack", layout=True)
    with tarfile.open(fileobj=_archive(bundle, tmp_path)) as file:
        names = {member.name for member in file}
    layout = tmp_path / "pack"
    assert names == {path.relative_to(layout).as_posix() for path in layout.rglob("*") if path.is_file()}
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    for blob in (layout / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (listed,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert listed["digest"] == packed.digest
    image: dict[str, Any] = json.loads((layout / "blobs" / "sha256" / packed.digest[7:]).read_bytes())
    assert image["annotations"]["org.opencontainers.image.version"] == "7"
    licences = "Apache-2.0 AND LicenseRef-unknown AND MIT"
    assert image["annotations"]["org.opencontainers.image.licenses"] == licences
    types = {layer["annotations"]["org.opencontainers.image.title"]: layer["mediaType"] for layer in image["layers"]}
    assert list(types)[:3] == ["manifest.json", "manifest.sha256", "model.sig"]
    assert types["model/model.onnx"] == "application/vnd.dualtune-edge.graph.v1"
    assert types["model/model.onnx.data"] == "application/vnd.dualtune-edge.weights.v1"


def _archive(bundle: Path, folder: Path) -> Any:
    pack_bundle(bundle, folder / "archive", layout=False)
    return (folder / "archive").open("rb")


def test_a_damaged_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "parity.json").write_bytes(b"{}")
    with pytest.raises(BundleError):
        pack_bundle(bundle, tmp_path / "pack", layout=False)
    assert not (tmp_path / "pack").exists()


def test_a_bundle_that_changes_meanwhile(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = packing._image

    def change(*of: Any) -> Any:
        result = image(*of)
        data = (bundle / "parity.json").read_bytes()
        (bundle / "parity.json").write_bytes(b" " + data[1:])
        return result

    monkeypatch.setattr(packing, "_image", change)
    with pytest.raises(BundleError, match="changed"):
        pack_bundle(bundle, tmp_path / "pack", layout=False)
    assert not (tmp_path / "pack").exists()


def test_nothing_is_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").touch()
    with pytest.raises(OutputError):
        pack_bundle(bundle, tmp_path / "pack", layout=False)


def _changed(value: Any, layers: Any) -> None:
    value["layers"] = layers


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: image["layers"][5]["annotations"].update({"org.opencontainers.image.title": "../x"}), "'../x'"),
        (lambda image: image["layers"][5]["annotations"].update({"org.opencontainers.image.title": "/x"}), "'/x'"),
        (lambda image: image["layers"].append(image["layers"][5]), "the path"),
        (lambda image: image["layers"][5].pop("annotations"), "''"),
        (lambda image: image["layers"][5].update(digest="sha256:../../x"), "digest"),
        (lambda image: image["layers"][5].update(size=-1), "size"),
        (lambda image: image.update(artifactType="application/vnd.other"), "artifactType"),
        (lambda image: _changed(image, {}), "layers"),
        (lambda image: image["layers"].pop(0), "no 'manifest.json'"),
        (lambda image: image["layers"].pop(5), "not both list"),
        (lambda image: image["layers"][5].update(size=image["layers"][5]["size"] + 1), "not both list"),
    ],
)
def test_an_image_that_an_attacker_wrote(bundle: Path, tmp_path: Path, change: Any, found: str) -> None:
    layout = tmp_path / "pack"
    digest = pack_bundle(bundle, layout, layout=True).digest[7:]
    image = json.loads((layout / "blobs" / "sha256" / digest).read_bytes())
    change(image)
    data = json.dumps(image).encode()
    other = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / other).write_bytes(data)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0] |= {"digest": f"sha256:{other}", "size": len(data)}
    (layout / "index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(BundleError, match=found.replace("(", r"\(").replace("..", r"\.\.")):
        install(layout, tmp_path / "store", None)
    assert not (tmp_path / "store" / "store.json").exists()


def _rewritten(layout: Path, change: Callable[[Any], object]) -> None:
    """Change the index, as an attacker would."""
    index = json.loads((layout / "index.json").read_bytes())
    change(index)
    (layout / "index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda index: index["manifests"][0].update(digest="sha256:../../../etc/passwd"), "digest"),
        (lambda index: index["manifests"][0].update(digest="md5:" + "0" * 32), "digest"),
        (lambda index: index["manifests"][0].update(size=index["manifests"][0]["size"] - 1), "bytes"),
        (lambda index: index["manifests"][0].update(size=2**63), "bytes"),
        (lambda index: index["manifests"][0].update(size="1"), "size"),
        (lambda index: index["manifests"][0].update(mediaType="application/vnd.oci.image.index.v1+json"), "0 images"),
        (lambda index: index["manifests"][0].update(artifactType="text/markdown"), "0 images"),
        (lambda index: index["manifests"][0].update(urls=["file:///etc/passwd"], digest="sha256:" + "0" * 64), "0000"),
        (lambda index: index.update(manifests=[]), "0 images"),
        (lambda index: index.update(manifests=None), "manifests"),
    ],
)
def test_an_index_that_an_attacker_wrote(bundle: Path, tmp_path: Path, change: Any, found: str) -> None:
    pack_bundle(bundle, tmp_path / "pack", layout=True)
    _rewritten(tmp_path / "pack", change)
    with pytest.raises(BundleError, match=found):
        install(tmp_path / "pack", tmp_path / "store", None)
    assert not (tmp_path / "store" / "store.json").exists()


@pytest.mark.parametrize("name", ["oci-layout", "index.json", "image"])
def test_what_describes_a_pack_is_not_endless(bundle: Path, tmp_path: Path, name: str) -> None:
    digest = pack_bundle(bundle, tmp_path / "pack", layout=True).digest[7:]
    size = 2**30
    path = tmp_path / "pack" / (f"blobs/sha256/{digest}" if name == "image" else name)
    if path.stat().st_nlink > 1:
        path.unlink()
    with path.open("ab") as file:
        file.truncate(size)  # of no bytes on the disk
    if name == "image":
        _rewritten(tmp_path / "pack", lambda index: index["manifests"][0].update(size=size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match=str(size)):
        install(tmp_path / "pack", tmp_path / "store", None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KB


@pytest.mark.parametrize("name", ["index.json", "./index.json", "oci-layout"])
def test_a_file_twice_in_the_archive(bundle: Path, tmp_path: Path, name: str) -> None:
    pack_bundle(bundle, tmp_path / "pack", layout=False)
    data = (tmp_path / "pack").read_bytes()
    second = tar.header(name, 2) + b"{}" + tar.padding(2)
    for order in (second + data, data.removesuffix(tar.END) + second + tar.END):
        (tmp_path / "pack").write_bytes(order)
        with pytest.raises(BundleError, match="twice"):
            install(tmp_path / "pack", tmp_path / "store", None)


@pytest.mark.parametrize("parts", [("prompts", "prompts/x.json"), ("a/b", "a"), ("A/b", "a")])
def test_a_path_that_is_file_and_folder(bundle: Path, tmp_path: Path, parts: tuple[str, str]) -> None:
    layout = tmp_path / "pack"
    digest = pack_bundle(bundle, layout, layout=True).digest[7:]
    image = json.loads((layout / "blobs" / "sha256" / digest).read_bytes())
    for layer, path in zip(image["layers"][-2:], parts, strict=True):
        layer["annotations"]["org.opencontainers.image.title"] = path
    data = json.dumps(image).encode()
    other = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / other).write_bytes(data)
    _rewritten(layout, lambda index: index["manifests"][0].update(digest=f"sha256:{other}", size=len(data)))
    with pytest.raises(BundleError, match="a file and a folder"):
        install(layout, tmp_path / "store", None)


@pytest.mark.parametrize("fault", ["link", "missing", "swapped", "no index", "two images", "no layout"])
def test_a_layout_that_is_not_whole(bundle: Path, tmp_path: Path, fault: str) -> None:
    layout = tmp_path / "pack"
    pack_bundle(bundle, layout, layout=True)
    blobs = layout / "blobs" / "sha256"
    names = [hashes_of(bundle)[name] for name in ("model/model.onnx", "model/model.onnx.data")]
    if fault == "link":
        (blobs / names[0]).rename(tmp_path / "elsewhere")
        (blobs / names[0]).symlink_to(tmp_path / "elsewhere")
    elif fault == "missing":
        (blobs / names[0]).unlink()
    elif fault == "swapped":
        (blobs / names[0]).unlink()
        shutil.copy(blobs / names[1], blobs / names[0])
    elif fault == "no index":
        (layout / "index.json").unlink()
    elif fault == "no layout":
        (layout / "oci-layout").unlink()
    else:
        index = json.loads((layout / "index.json").read_bytes())
        index["manifests"].append(index["manifests"][0] | {"digest": "sha256:" + "0" * 64})
        (layout / "index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(BundleError):
        install(layout, tmp_path / "store", None)
    assert not (tmp_path / "store" / "store.json").exists()


def test_what_an_update_costs(bundle: Path, tmp_path: Path) -> None:
    new = release(bundle, tmp_path / "new", Release(product="helper", version=8), changed=b" ")
    (new / "model.sig").unlink()
    pack_bundle(bundle, tmp_path / "old.tar", layout=False)
    pack_bundle(new, tmp_path / "new.oci", layout=True)
    install(tmp_path / "old.tar", tmp_path / "store", None)
    results = [
        difference(old, other)
        for old in (bundle, tmp_path / "old.tar", tmp_path / "store")
        for other in (new, tmp_path / "new.oci")
    ]
    assert all(result == results[0] for result in results)
    assert [(file.what, file.path) for file in results[0].files] == [
        ("changed", "export.json"),
        ("changed", "manifest.json"),
        ("changed", "manifest.sha256"),
        ("removed", "model.sig"),
    ]
    sizes = [(new / name).stat().st_size for name in ("export.json", "manifest.json", "manifest.sha256")]
    assert results[0].moved == sum(sizes)
    assert results[0].bytes == sum(path.stat().st_size for path in new.rglob("*") if path.is_file())


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_the_commands(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pack", bundle, "-o", tmp_path / "pack.tar", "--json") == 0
    assert json.loads(capsys.readouterr().out)["signed"] is True
    (bundle / "model.sig").unlink()
    assert run("pack", bundle, "-o", tmp_path / "pack.oci", "--layout") == 0
    assert "the bundle is not signed" in capsys.readouterr().err
    assert run("diff", tmp_path / "pack.tar", tmp_path / "pack.oci") == 0
    assert "removed" in capsys.readouterr().out
    assert run("diff", tmp_path / "pack.tar", tmp_path) == BundleError.exit_code
