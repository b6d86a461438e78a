"""A store's current version is the newest that was installed and trusted, until an operator goes back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from releases import pack_release, release
from signatures import TestKey, hashes_of, policy, sign, write_policy

from dualtune_edge import cli
from dualtune_edge.export.release.pack import pack_bundle
from dualtune_edge.runtime.bundle.current import read_state
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.store import install as installing
from dualtune_edge.runtime.store.collect import collect, contents
from dualtune_edge.runtime.store.install import changing, install, roll_back
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.errors import BundleError, OutputError, StoreError, TrustError

OURS = TestKey()


class Packs:
    """Packs of versions of one bundle, made at first use."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.bundle, self._folder, self._made = bundle, folder, dict[int, Path]()

    def __getitem__(self, version: int) -> Path:
        if version not in self._made:
            self._made[version] = pack_release(self.bundle, self._folder, version, key=OURS)
        return self._made[version]

    def folder(self, version: int) -> Path:
        """The bundle that was packed."""
        return self[version].with_suffix("")


@pytest.fixture(scope="module")
def packs(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Packs:
    return Packs(exported, tmp_path_factory.mktemp("packs"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def versions(store: Path) -> tuple[int, int | None]:
    state = read_state(store)
    return state.current.release.version, state.previous and state.previous.release.version


def test_a_first_version_and_a_second(packs: Packs, store: Path) -> None:
    first = install(packs[1], store, None)
    assert versions(store) == (1, None)
    assert first.shared < first.written / 10
    second = install(packs[2], store, None)
    assert versions(store) == (2, 1)
    assert second.written == (packs.folder(2) / "export.json").stat().st_size
    assert hashes_of(store / "versions" / second.state.current.image) == hashes_of(packs.folder(2))


def test_it_is_opened_in_place_of_a_bundle(packs: Packs, store: Path) -> None:
    install(packs[1], store, policy(OURS.trusted()))
    with Agent.open(store, trust=policy(OURS.trusted())) as agent:
        assert (agent.bundle.name, agent.bundle.signer) == ("store", "release")
        assert agent.bundle.superseded is None
        install(packs[2], store, None)
        assert agent.bundle.superseded == "helper 2"
        assert agent.call("sort by name").toolset  # of the version that was opened
    assert open_bundle(store).manifest.release == Release(product="helper", version=2)


def test_a_running_agent_keeps_its_version(packs: Packs, store: Path) -> None:
    install(packs[1], store, None)
    bundle = open_bundle(store)
    for version in (2, 3, 4):
        install(packs[version], store, None)
    assert collect(store).versions == 1
    assert bundle.plan(next(bundle.manifest.stages))
    del bundle
    assert collect(store).versions == 1
    assert [version.release and version.release.version for version in contents(store).versions] == [4, 3]


def test_the_same_once_more(packs: Packs, store: Path) -> None:
    install(packs[1], store, None)
    before = (store / "store.json").read_bytes()
    assert install(packs[1], store, None).written == 0
    assert (store / "store.json").read_bytes() == before


def test_signed_again_by_another_key(packs: Packs, store: Path, tmp_path: Path) -> None:
    install(packs[1], store, policy(OURS.trusted()))
    new = TestKey()
    again = shutil.copytree(packs.folder(1), tmp_path / "again")
    sign(again, new)
    pack_bundle(again, tmp_path / "again.tar", layout=False)
    install(tmp_path / "again.tar", store, policy(new.trusted("new")))
    assert open_bundle(store, trust=policy(new.trusted("new"))).signer == "new"
    assert roll_back(store, policy(OURS.trusted())).current.release.version == 1


def test_a_folder_is_a_pack_too(exported: Path, store: Path, tmp_path: Path) -> None:
    layout = pack_release(exported, tmp_path, 5, key=OURS, suffix=".oci")
    install(layout, store, policy(OURS.trusted()))
    assert versions(store) == (5, None)


class TestItNeverGoesBackByItself:
    def test_an_older_version(self, packs: Packs, store: Path) -> None:
        install(packs[2], store, None)
        with pytest.raises(StoreError, match="version 1"):
            install(packs[1], store, None)
        assert versions(store) == (2, None)

    def test_rollback_is_an_operators(self, packs: Packs, store: Path) -> None:
        for version in (1, 2):
            install(packs[version], store, None)
        roll_back(store, None)
        assert versions(store) == (1, 2)
        assert [(change.by, change.version) for change in read_state(store).log] == [
            ("install", 1),
            ("install", 2),
            ("rollback", 1),
        ]

    def test_what_was_rolled_back_does_not_come_again(self, packs: Packs, store: Path) -> None:
        for version in (1, 2):
            install(packs[version], store, None)
        roll_back(store, None)
        with pytest.raises(StoreError, match="version 2"):
            install(packs[2], store, None)
        install(packs[3], store, None)
        assert versions(store) == (3, 1)

    def test_other_contents_of_the_same_version(self, packs: Packs, store: Path, tmp_path: Path) -> None:
        install(packs[1], store, None)
        release(packs.bundle, tmp_path / "other", Release(product="helper", version=1), changed=b"\n\n")
        pack_bundle(tmp_path / "other", tmp_path / "other.tar", layout=False)
        with pytest.raises(StoreError, match="version 1"):
            install(tmp_path / "other.tar", store, None)

    def test_nothing_to_go_back_to(self, packs: Packs, store: Path) -> None:
        install(packs[1], store, None)
        with pytest.raises(StoreError, match="no version before"):
            roll_back(store, None)

    def test_a_version_that_is_not_trusted_any_more(self, packs: Packs, store: Path) -> None:
        for version in (1, 2):
            install(packs[version], store, None)
        old = read_state(store).previous
        assert old
        trust = policy(OURS.trusted(), revoked_bundles=(old.manifest_sha256,))
        with pytest.raises(TrustError, match="revoked"):
            roll_back(store, trust)
        assert versions(store) == (2, 1)

    def test_a_damaged_version_before(self, packs: Packs, store: Path) -> None:
        for version in (1, 2):
            install(packs[version], store, None)
        old = read_state(store).previous
        assert old
        (store / "versions" / old.image / "export.json").write_bytes(b"")
        with pytest.raises(BundleError):
            roll_back(store, None)
        assert versions(store) == (2, 1)


class TestRefused:
    @pytest.fixture(autouse=True)
    def installed(self, packs: Packs, store: Path) -> Iterator[None]:
        """Whatever is refused leaves the version before, and no blob more."""
        install(packs[1], store, None)
        before = sorted(path for path in store.rglob("*") if path.is_file())
        yield
        assert versions(store) == (1, None)
        assert open_bundle(store).manifest.release == Release(product="helper", version=1)
        assert sorted(path for path in store.rglob("*") if path.is_file()) == before

    def test_another_product(self, exported: Path, store: Path, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="'other'"):
            install(pack_release(exported, tmp_path, 2, product="other"), store, None)

    def test_no_release(self, exported: Path, store: Path, tmp_path: Path) -> None:
        pack_bundle(release(exported, tmp_path / "bundle", None), tmp_path / "pack", layout=False)
        with pytest.raises(StoreError, match="without product"):
            install(tmp_path / "pack", store, None)

    def test_out_of_date(self, exported: Path, store: Path, tmp_path: Path) -> None:
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        late = Release(product="helper", version=2, expires=yesterday)
        pack_bundle(release(exported, tmp_path / "bundle", late), tmp_path / "pack", layout=False)
        with pytest.raises(StoreError, match="was to be replaced"):
            install(tmp_path / "pack", store, None)

    def test_unsigned(self, exported: Path, store: Path, tmp_path: Path) -> None:
        pack = pack_release(exported, tmp_path, 2)
        with pytest.raises(TrustError, match="no signature") as caught:
            install(pack, store, policy(OURS.trusted()))
        assert caught.value.where == str(pack / "model.sig")

    def test_signed_by_another(self, exported: Path, store: Path, tmp_path: Path) -> None:
        with pytest.raises(TrustError, match="does not have"):
            install(pack_release(exported, tmp_path, 2, key=TestKey()), store, policy(OURS.trusted()))

    def test_a_signature_of_another_version(self, packs: Packs, store: Path, tmp_path: Path) -> None:
        mixed = shutil.copytree(packs.folder(2), tmp_path / "mixed")
        shutil.copy(packs.folder(1) / "model.sig", mixed)
        pack_bundle(mixed, tmp_path / "pack", layout=False)
        with pytest.raises(TrustError, match="SHA-256"):
            install(tmp_path / "pack", store, policy(OURS.trusted()))

    def test_half_of_the_pack(self, packs: Packs, store: Path, tmp_path: Path) -> None:
        (tmp_path / "pack").write_bytes(packs[2].read_bytes()[: packs[2].stat().st_size // 2])
        with pytest.raises(BundleError):
            install(tmp_path / "pack", store, None)

    def test_while_another_process_installs(self, packs: Packs, store: Path) -> None:
        with changing(store), pytest.raises(StoreError, match="one at a time"):
            install(packs[2], store, None)

    def test_no_room(self, packs: Packs, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(installing, "_write", full)
        with pytest.raises(Exception, match="No space"):
            install(packs[2], store, None)


@pytest.mark.parametrize("place", [0.0, 0.002, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_one_bit_of_the_pack(packs: Packs, store: Path, tmp_path: Path, place: float) -> None:
    data = bytearray(packs[1].read_bytes())
    data[int(len(data) * place) & ~511] ^= 1
    (tmp_path / "pack").write_bytes(data)
    with pytest.raises((BundleError, TrustError)):
        install(tmp_path / "pack", store, policy(OURS.trusted()))
    assert not (store / "store.json").exists()


def test_a_file_system_without_hard_links(packs: Packs, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for version in (1, 2, 3):
        install(packs[version], store, None)
    assert collect(store).versions == 1
    assert open_bundle(store).manifest.release == Release(product="helper", version=3)
    roll_back(store, None)
    assert versions(store) == (2, 3)


def test_a_damaged_blob_is_written_again(packs: Packs, store: Path, tmp_path: Path) -> None:
    install(packs[1], store, None)
    shared = hashes_of(packs.folder(1))["model/model.onnx"]
    blob = store / "blobs" / shared
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"damaged")
    damaged.replace(blob)
    assert install(packs[2], store, None).written > (packs.folder(2) / "model" / "model.onnx").stat().st_size
    assert open_bundle(store).manifest.release == Release(product="helper", version=2)


@pytest.mark.parametrize("text", ["", "{}", "[", '{"format": "dualtune-edge-store", "version": 2}'])
def test_a_damaged_state(packs: Packs, store: Path, text: str) -> None:
    install(packs[1], store, None)
    (store / "store.json").write_text(text, encoding="utf-8")
    for use in (open_bundle, contents, collect, lambda store: install(packs[2], store, None)):
        with pytest.raises(StoreError):
            use(store)


def test_a_version_that_is_gone(packs: Packs, store: Path) -> None:
    shutil.rmtree(store / "versions" / install(packs[1], store, None).state.current.image)
    with pytest.raises(StoreError, match="no such version"):
        open_bundle(store)


@pytest.mark.parametrize("damage", ["a file", "its manifest", "all", "a file more"])
def test_the_pack_of_a_damaged_version_makes_it_whole(packs: Packs, store: Path, damage: str) -> None:
    trust = policy(OURS.trusted())
    for version in (1, 2):
        state = install(packs[version], store, trust).state
    folder = store / "versions" / state.current.image
    if damage == "all":
        shutil.rmtree(folder)
    elif damage == "a file more":
        (folder / "more.so").touch()
    else:
        path = folder / ("manifest.json" if damage == "its manifest" else "model/model.onnx")
        path.write_bytes(b"x" * path.stat().st_size)  # the blob too: they are one file
    with pytest.raises((BundleError, StoreError, TrustError)):
        open_bundle(store, trust=trust)
    install(packs[2], store, trust)
    assert read_state(store) == state
    assert open_bundle(store, trust=trust).manifest.release == Release(product="helper", version=2)


@pytest.mark.parametrize("name", ["versions", "blobs", "lock", "store.json"])
def test_nothing_is_written_or_removed_behind_a_link(packs: Packs, store: Path, tmp_path: Path, name: str) -> None:
    install(packs[1], store, None)
    elsewhere = tmp_path / "elsewhere"
    (store / name).rename(elsewhere)
    (store / name).symlink_to(elsewhere)
    before = contents_of(elsewhere)
    for act in (lambda: install(packs[2], store, None), lambda: roll_back(store, None), lambda: collect(store)):
        with pytest.raises(StoreError, match="a link"):
            act()
    assert contents_of(elsewhere) == before


@pytest.mark.parametrize("name", ["store.json.partial", "blobs/.incoming.0.partial"])
def test_a_link_in_the_place_of_a_temporary_file(packs: Packs, store: Path, tmp_path: Path, name: str) -> None:
    install(packs[1], store, None)
    elsewhere = tmp_path / "elsewhere"
    if name.endswith(".0.partial"):
        (elsewhere / "stage").mkdir(parents=True)
        (elsewhere / "stage" / "file").write_bytes(b"of somebody")
    else:
        elsewhere.write_bytes(b"of somebody")
    before = contents_of(elsewhere)
    (store / name).symlink_to(elsewhere)
    install(packs[2], store, None)
    assert versions(store) == (2, 1)
    assert contents_of(elsewhere) == before


def test_what_is_not_the_stores_stays(packs: Packs, store: Path) -> None:
    install(packs[1], store, None)
    others = [store / "blobs" / "notes.txt", store / "versions" / "mine" / "file"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"of somebody")
    collect(store)
    assert [path.read_bytes() for path in others] == [b"of somebody"] * 2
    assert len(contents(store).versions) == 1


def contents_of(path: Path) -> dict[str, bytes]:
    """Of a file, or of all below a folder."""
    paths = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    return {str(found): found.read_bytes() for found in paths}


def test_no_store(tmp_path: Path, packs: Packs) -> None:
    with pytest.raises(StoreError):
        contents(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        install(packs[1], tmp_path / "file", None)


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_the_commands(packs: Packs, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust = write_policy(policy(OURS.trusted()), tmp_path / "trust.toml")
    for version in (1, 2, 3):
        assert run("install", packs[version], "--store", store, "--trust", trust) == 0
    assert "helper 3 is current, before it helper 2" in capsys.readouterr().out
    assert run("rollback", "--store", store, "--trust", trust) == 0
    assert run("gc", "--store", store, "--json") == 0
    removed: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (removed["versions"], removed["blobs"]) == (1, 1)
    assert run("list", "--store", store) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["helper", "2", "current"], ["helper", "3", "previous"]]
    assert run("inspect", store, "--trust", trust) == 0
    assert run("install", packs[1], "--store", store) == StoreError.exit_code
