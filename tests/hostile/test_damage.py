"""No damaged byte reaches onnxruntime: bits, lengths, names and places of every file."""
# ruff: noqa: E501 - a list of paths

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import tiny_bundle

from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.errors import BundleError

Share = Callable[[int], int]
Figure = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is the end of the test."""

    def opened(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("onnxruntime was given a file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)


def files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def refused(bundle: Path) -> None:
    """By who opens a bundle in earnest."""
    with pytest.raises(BundleError):
        Agent.open(bundle)


def test_bits(bundle: Path, share: Share, figure: Figure) -> None:
    draw, paths = random.Random(1), files(bundle)  # noqa: S311 - seeded, not secret
    count = share(10_000)
    for path in itertools.islice(itertools.cycle(paths), count):
        with path.open("r+b") as file:
            at = draw.randrange(path.stat().st_size)
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << draw.randrange(8)]))
        refused(bundle)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(byte)
    assert open_bundle(bundle)
    figure("No damaged byte reaches onnxruntime", f"{count:,} bits over {len(paths)} files: all refused")


def test_lengths_names_and_places(bundle: Path, share: Share, figure: Figure) -> None:
    paths, tried = files(bundle), 0
    draw = random.Random(2)  # noqa: S311
    for path in paths:
        whole = path.read_bytes()
        lengths = {0, 1, len(whole) // 2, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(share(20)))}
        for length in lengths:
            path.write_bytes(whole[:length])
            refused(bundle)
        path.write_bytes(whole + b"\0")
        refused(bundle)
        path.write_bytes(whole)
        for other in (
            path.with_name(f"{path.name}x"),
            path.with_name(path.name.upper()),
            bundle / f"moved-{path.name}",
        ):
            path.rename(other)
            refused(bundle)
            other.rename(path)
        (path.parent / "more.so").write_bytes(b"\x7fELF")
        refused(bundle)
        (path.parent / "more.so").unlink()
        tried += len(lengths) + 5
    assert open_bundle(bundle)
    figure("… cut, renamed, moved, added", f"{tried:,} changes: all refused")


def test_files_of_each_others_bytes(bundle: Path, share: Share, figure: Figure) -> None:
    pairs = list(itertools.combinations(files(bundle), 2))
    draw = random.Random(3)  # noqa: S311
    draw.shuffle(pairs)
    pairs = pairs[: share(400)]
    for one, other in pairs:
        first, second = one.read_bytes(), other.read_bytes()
        if first == second:
            continue
        one.write_bytes(second)
        other.write_bytes(first)
        refused(bundle)
        one.write_bytes(first)
        other.write_bytes(second)
    figure("… swapped", f"{len(pairs):,} pairs of files: all refused")


HOSTILE_PATHS = [
    "../secret", "model/../../secret", "a/../b", "/etc/passwd", "//server/share/x", "./model", "model//x", "model/",
    "", ".", "..", "C:/x", "C:x", "c:\\x", "\\\\server\\share\\x", "\\\\?\\C:\\x", "model\\x", "..\\x", "model/a:stream",
    "nul", "NUL.txt", "model/con", "model/aux.json", "COM1", "lpt9.bin", "prn", "com0.x", "model/x\0y", "\0", "a\nb",
    "a\rb", "a\x7fb", "a b", "a\tb", "model/x.", "model/x ", " model", "~/x", "~root", "$HOME/x", "${HOME}", "%TEMP%/x",
    "model/.hidden", ".", "...", "-rf", "--", "a*", "a?b", "a|b", "a<b", "a>b", 'a"b', "a'b", "a;b", "a&b", "a`b`", "$(x)",
    "\u202egnp.exe", "módel", "ﬁle", "a\u200bb", "ａ", "\ufeffa", "a\u0301", "file:///etc/passwd", "http://x/y",
    "model/./x", "a/b/../../../c", "..%2fsecret", "%2e%2e/secret", "....//secret", "/", "\\", "\\x", "x/\\y", "/proc/self/mem",
    "a/" * 200 + "b", "x" * 5_000, "../" * 50 + "etc/passwd", "..;/x", "a/..\0/b", "con.", "a..", "@/x", "#x", "[x]", "{x}",
]  # fmt: skip
PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "a file": lambda manifest, path: manifest["files"][0].update(path=path),
    "a prompt": lambda manifest, path: manifest["toolsets"][0]["selection"].update(prompt=path),
    "an adapter": lambda manifest, path: manifest["adapters"][0].update(path=path),
    "a state": lambda manifest, path: manifest["toolsets"][0]["selection"].update(state=path),
    "an added file": lambda manifest, path: manifest["files"].append({**manifest["files"][0], "path": path}),
}


def test_paths_stay_inside(bundle: Path, figure: Figure) -> None:
    manifest = (bundle / "manifest.json").read_bytes()
    for apply in PLACES.values():
        for path in HOSTILE_PATHS:
            (bundle / "manifest.json").write_bytes(manifest)
            tiny_bundle.change_manifest(bundle, lambda value, apply=apply, path=path: apply(value, path))
            refused(bundle)
    figure("Paths stay inside", f"{len(HOSTILE_PATHS)} paths in {len(PLACES)} places: all refused")
