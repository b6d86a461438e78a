"""What a bundle needs of this machine, and what is wrong with it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from releases import pack_release, release
from signatures import TestKey, policy, sign, write_policy

from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import Machine
from dualtune_edge.runtime.doctor import bundle as examined
from dualtune_edge.runtime.doctor import command
from dualtune_edge.runtime.doctor.command import WRONG
from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.runtime.store.install import install
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.errors import EngineError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of folders say nothing there")
Diagnose = Callable[..., tuple[int, dict[str, Any]]]


def test_a_bundle_that_fits(diagnose: Diagnose, exported: Path) -> None:
    code, lines = diagnose(str(exported))
    assert code == 0
    states = {about: lines[about]["state"] for about in ("bundle", "folder", "memory", "engine")}
    assert set(states.values()) == {"ok"}, lines
    assert "whole" in lines["bundle"]["found"]
    assert "a first token in" in lines["engine"]["found"]
    assert "runs" not in lines


@pytest.mark.parametrize("damage", ["weights", "manifest", "missing", "more", "nowhere"])
def test_a_damaged_bundle(damage: str, diagnose: Diagnose, bundle: Path) -> None:
    if damage == "weights":
        data = bundle / "model" / "model.onnx.data"
        data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    elif damage == "manifest":
        (bundle / "manifest.json").write_bytes(b"{}")
    elif damage == "missing":
        (bundle / "model" / "tokenizer.json").unlink()
    elif damage == "more":
        (bundle / "more.txt").touch()
    else:
        shutil.rmtree(bundle)
    code, lines = diagnose(str(bundle))
    assert (code, lines["bundle"]["state"]) == (WRONG, "wrong")
    assert str(bundle) in lines["bundle"]["found"]
    assert lines["bundle"]["fix"]
    assert "engine" not in lines


def test_who_signed_it(diagnose: Diagnose, exported: Path, tmp_path: Path) -> None:
    key, other = TestKey(), TestKey()
    signed = release(exported, tmp_path / "signed", None)
    ours = str(write_policy(policy(key.trusted()), tmp_path / "ours.toml"))
    code, lines = diagnose(str(signed), "--trust", ours)
    assert (code, lines["bundle"]["state"]) == (WRONG, "wrong")
    assert "no signature" in lines["bundle"]["found"]
    sign(signed, key)
    code, lines = diagnose(str(signed), "--trust", ours)
    assert (code, lines["trust"]["state"]) == (0, "ok")
    assert "signed by release" in lines["bundle"]["found"]
    theirs = str(write_policy(policy(other.trusted()), tmp_path / "theirs.toml"))
    assert diagnose(str(signed), "--trust", theirs)[0] == WRONG


def test_a_folder_that_others_write_to(diagnose: Diagnose, bundle: Path) -> None:
    bundle.chmod(0o777)
    code, lines = diagnose(str(bundle))
    assert (code, lines["folder"]["state"]) == (0, "note")
    assert "mode 777" in lines["folder"]["found"]


def test_an_image_whose_times_are_not_trusted(
    diagnose: Diagnose, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examined, "name_of", lambda _folder: None)
    code, lines = diagnose(str(exported))
    assert (code, lines["folder"]["state"]) == (0, "note")
    assert "each start hashes all" in lines["folder"]["found"]


def test_a_store(diagnose: Diagnose, exported: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for version in (1, 2):
        install(pack_release(exported, tmp_path, version), store, None)
    code, lines = diagnose(str(store))
    assert code == 0
    assert lines["store"]["found"].startswith("helper 2, current; helper 1; ")
    assert lines["release"]["found"] == "helper 2"
    state = json.loads((store / "store.json").read_text(encoding="utf-8"))
    (store / "versions" / state["previous"]["image"] / "manifest.json").unlink()
    code, lines = diagnose(str(store))
    assert (code, lines["store"]["state"]) == (0, "note")
    shutil.rmtree(store / "versions" / state["current"]["image"])
    code, lines = diagnose(str(store))
    assert (code, lines["bundle"]["state"]) == (WRONG, "wrong")


def test_a_release_after_its_day(diagnose: Diagnose, exported: Path, tmp_path: Path) -> None:
    late = release(exported, tmp_path / "late", Release(product="helper", version=1, expires="2020-01-01"))
    code, lines = diagnose(str(late))
    assert (code, lines["release"]["state"]) == (0, "note")


def test_what_was_built_with_a_later_onnxruntime(
    diagnose: Diagnose, bundle: Path, change_manifest: Callable[[Callable[[dict[str, Any]], object]], None]
) -> None:
    change_manifest(lambda manifest: manifest["versions"].update(onnxruntime="99.1"))
    code, lines = diagnose(str(bundle))
    assert (code, lines["onnxruntime"]["state"], lines["onnxruntime"]["expected"]) == (0, "note", ">= 99.1")


@pytest.mark.parametrize(("total", "free", "code", "state"), [(1000, 0, WRONG, "wrong"), (None, 0, 0, "note")])
def test_memory(
    total: int | None,
    free: int,
    code: int,
    state: str,
    *,
    diagnose: Diagnose,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = detect()
    cpu = type(here.cpu)(**{**vars(here.cpu), "memory": total})
    small = Machine(system=here.system, architecture=here.architecture, cpu=cpu)
    monkeypatch.setattr(command, "detect", lambda: small)
    monkeypatch.setattr(examined, "free_memory", lambda: free)
    ended, lines = diagnose(str(exported))
    assert (ended, lines["memory"]["state"]) == (code, state)
    assert ("engine" in lines) == (code == 0)  # what cannot fit is not opened


def test_an_engine_that_does_not_open(diagnose: Diagnose, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_found: object) -> Engine:
        raise EngineError("model.onnx", found="an operator of tomorrow", expected="one of today", fix="Update.")

    monkeypatch.setattr(examined, "open_best", fail)
    code, lines = diagnose(str(exported))
    assert (code, lines["engine"]["state"], lines["engine"]["fix"]) == (WRONG, "wrong", "Update.")


def test_a_profile_that_the_bundle_cannot_follow(diagnose: Diagnose, exported: Path, static_profile: Path) -> None:
    code, lines = diagnose(str(exported), "--profile", str(static_profile))
    assert (code, lines["profile"]["state"]) == (WRONG, "wrong")
    assert "static graphs" in lines["profile"]["found"]
