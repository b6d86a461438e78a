"""The power goes at every call that changes the disk: the version before or the new one is current, whole."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from power_cut import Disk, Loss, PowerCutError
from releases import pack_release
from signatures import hashes_of

from dualtune_edge.runtime.bundle.current import read_state
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.runtime.store import install as installing
from dualtune_edge.runtime.store.collect import collect
from dualtune_edge.runtime.store.install import install, roll_back
from dualtune_edge.toolkit.bundle.store import Installed

# Calls: the first version has the same few for each of its files. `make hostile` takes every one.
_EVERY = 1 if os.environ.get("DUALTUNE_EDGE_HOSTILE") == "full" else 7


@pytest.fixture(scope="module")
def packs(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("packs")
    return pack_release(exported, folder, 1), pack_release(exported, folder, 2)


def cuts(store: Path, work: Path, act: object, loss: Loss, step: int = 1) -> Iterator[int]:
    """Do `act` on a copy of the store with the power cut at call 1, 1 + step, … to the end."""
    assert callable(act)
    for cut in range(1, 10_000, step):
        copy, scratch = work / "store", work / "scratch"
        for folder in (copy, scratch):
            shutil.rmtree(folder, ignore_errors=True)
        if store.exists():
            shutil.copytree(store, copy)
        scratch.mkdir()
        disk = Disk(work / "store", scratch, cut)
        try:
            with disk.watched():
                act(copy)
        except PowerCutError:
            disk.lose(loss)
            yield cut
        else:
            return


def whole(store: Path, version: Installed) -> bool:
    """Whether every file of a version is as its manifest says."""
    folder = store / "versions" / version.image
    return hashes_of(folder) == open_signed(folder, None, verify="never").hashes


@pytest.fixture(autouse=True)
def unhashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is hashed once, as it is written: this is about the order of the calls."""
    monkeypatch.setattr(installing, "open_signed", functools.partial(open_signed, verify="never"))


@pytest.mark.parametrize("loss", ["contents", "names"])
def test_installing(packs: tuple[Path, Path], tmp_path: Path, loss: Loss) -> None:
    install(packs[0], tmp_path / "before", None)
    seen = []
    for _ in cuts(tmp_path / "before", tmp_path, lambda store: install(packs[1], store, None), loss):
        store = tmp_path / "store"
        state = read_state(store)
        seen.append(state.current.release.version)
        assert whole(store, state.current)
        assert state.previous is None or whole(store, state.previous)
    assert seen == sorted(seen)
    assert set(seen) == ({1, 2} if loss == "contents" else {1})  # the last call syncs the name
    assert len(seen) > 50
    store = tmp_path / "store"
    assert read_state(store).current.release.version == 2


@pytest.mark.parametrize("loss", ["contents", "names"])
def test_installing_the_first(packs: tuple[Path, Path], tmp_path: Path, loss: Loss) -> None:
    for cut in cuts(tmp_path / "nowhere", tmp_path, lambda store: install(packs[0], store, None), loss, _EVERY):
        store = tmp_path / "store"
        if (store / "store.json").exists():
            assert whole(store, read_state(store).current)
        if cut % (3 * _EVERY) == 1:  # and it heals
            install(packs[0], store, None)
            collect(store)
            assert not list(store.rglob("*.partial"))
            assert whole(store, read_state(store).current)


@pytest.mark.parametrize("loss", ["contents", "names"])
def test_going_back(packs: tuple[Path, Path], tmp_path: Path, loss: Loss) -> None:
    for pack in packs:
        install(pack, tmp_path / "before", None)
    for _ in cuts(tmp_path / "before", tmp_path, lambda store: roll_back(store, None), loss):
        state = read_state(tmp_path / "store")
        assert state.previous
        assert whole(tmp_path / "store", state.current)
        assert {state.current.release.version, state.previous.release.version} == {1, 2}


@pytest.mark.parametrize("loss", ["contents", "names"])
def test_collecting(packs: tuple[Path, Path], tmp_path: Path, loss: Loss, exported: Path) -> None:
    for pack in (*packs, pack_release(exported, tmp_path, 3)):
        install(pack, tmp_path / "before", None)
    for _ in cuts(tmp_path / "before", tmp_path, collect, loss):
        state = read_state(tmp_path / "store")
        assert state.previous
        assert whole(tmp_path / "store", state.current)
        assert whole(tmp_path / "store", state.previous)
