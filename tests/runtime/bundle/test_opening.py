import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.bundle import plain_files
from dualtune_edge.runtime.bundle.checks import check_genai_config
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.errors import BundleError

MANIFEST = "manifest.json"
Change = Callable[[dict[str, Any]], object]


def files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def refused(bundle: Path, match: str | None = None) -> None:
    with pytest.raises(BundleError, match=match):
        open_bundle(bundle)


def test_a_whole_bundle_opens(exported: Path) -> None:
    opened = open_bundle(exported)
    assert [entry.toolset.name for entry in opened.manifest.toolsets] == ["files", "git"]
    assert opened.tokenizer.get_vocab_size() == opened.manifest.tokenizer.vocab_size
    assert opened.plan(opened.manifest.toolsets[0].selection).stage == "selection"
    assert opened.size_bytes == sum(path.stat().st_size for path in files(exported))


def test_properties_keep_the_order_of_the_tool_file(exported: Path) -> None:
    opened = open_bundle(exported)
    entry = opened.manifest.toolsets[0]
    for tools in (entry.toolset.tools, opened.plan(entry.arguments["read"]).tools):
        assert list(tools[0].parameters["properties"]) == ["path", "lines"]


def test_a_bundle_opens_through_a_link_that_the_user_named(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(exported)
    assert open_bundle(tmp_path / "link").manifest.toolsets


def test_hard_links_are_plain_files(bundle: Path, tmp_path: Path) -> None:
    file = bundle / "model" / "model.onnx.data"
    os.link(file, tmp_path / "elsewhere")
    assert open_bundle(bundle).root == bundle


@pytest.mark.parametrize("name", ["", "absent", "absent\0nul"])
def test_no_bundle_there(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "no manifest.json")


def test_bit_flips_in_every_file(bundle: Path) -> None:
    draw = random.Random(0)  # noqa: S311 - seeded, not secret
    for path in files(bundle):
        whole = path.read_bytes()
        for _ in range(8):
            at, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            refused(bundle)
        path.write_bytes(whole)
    assert open_bundle(bundle)


def test_truncations_and_growth_of_every_file(bundle: Path) -> None:
    for path in files(bundle):
        whole = path.read_bytes()
        for changed in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\n"):
            path.write_bytes(changed)
            refused(bundle)
        path.write_bytes(whole)
    assert open_bundle(bundle)


def test_every_file_missing_or_renamed(bundle: Path) -> None:
    for path in files(bundle):
        path.rename(path.with_name("renamed"))
        refused(bundle, "no such file|no manifest.json|another hash, or none")
        path.with_name("renamed").rename(path)
    assert open_bundle(bundle)


def test_an_extra_file(bundle: Path) -> None:
    (bundle / "model" / "custom_ops.so").write_bytes(b"")
    refused(bundle, "does not list")


def test_two_files_of_one_size_swapped(bundle: Path) -> None:
    one, two = sorted((bundle / "adapters").iterdir())[:2]
    assert one.stat().st_size == two.stat().st_size
    one.rename(bundle / "spare")
    two.rename(one)
    (bundle / "spare").rename(two)
    refused(bundle, "SHA-256")


def test_without_verification_sizes_still_count(bundle: Path) -> None:
    path = bundle / "model" / "model.onnx.data"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    assert open_bundle(bundle, verify="never")
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError):
        open_bundle(bundle, verify="never")


@pytest.mark.parametrize("where", ["model/model.onnx.data", "model", "manifest.json", "prompts"])
def test_a_symbolic_link_to_the_very_same_bytes(bundle: Path, tmp_path: Path, where: str) -> None:
    (bundle / where).rename(tmp_path / "moved")
    (bundle / where).symlink_to(tmp_path / "moved")
    refused(bundle, "link|no manifest.json")


def test_a_dangling_link(bundle: Path) -> None:
    (bundle / "model" / "more").symlink_to("nowhere")
    refused(bundle, "a link or a device")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe(bundle: Path) -> None:
    os.mkfifo(bundle / "model" / "pipe")
    refused(bundle, "a link or a device")


HOSTILE = [
    "../secret", "model/../../secret", "a/../b", "/etc/passwd", "//server/share/x", "./model", "model//x", "model/",
    "", ".", "..", "C:/x", "C:x", "c:\\x", "\\\\server\\share\\x", "\\\\?\\C:\\x", "model\\x", "..\\x",
    "model/a:stream", "nul", "NUL.txt", "model/con", "model/aux.json", "COM1", "lpt9.bin",
    "model/x\0y", "\0", "a\nb", "a\x7fb", "a b",
    "model/x.", "model/x ", " model", "~/x", "~root", "$HOME/x", "%TEMP%/x", "model/.hidden", "-rf", "a*", "a?b", "a|b",
    "a<b", 'a"b', "\u202egnp.exe", "módel", "ﬁle", "a\u200bb", "ａ", "file:///etc/passwd", "http://x/y", "model/./x",
    "a/b/../../../c", "..%2fsecret", "%2e%2e/secret", "....//secret", "/", "\\", "\\x", "x/\\y", "a;b", "a&b", "a'b",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_paths(bundle: Path, change_manifest: Callable[[Change], None], path: str) -> None:
    change_manifest(lambda manifest: manifest["files"][0].update(path=path))
    refused(bundle, "the path")


def test_a_path_twice_but_for_case(bundle: Path, change_manifest: Callable[[Change], None]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"].append({**manifest["files"][0], "path": manifest["files"][0]["path"].upper()})

    change_manifest(change)
    refused(bundle, "twice")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(version=2), "variants in version 2"),
        (lambda m: m.update(version=3), "version"),
        (lambda m: m.update(format="other"), "format"),
        (lambda m: m.update(extra=1), "unknown key 'extra'"),
        (lambda m: m.pop("base"), "base"),
        (lambda m: m.update(toolsets=[]), "toolsets"),
        (lambda m: m["files"][0].update(size=-1), "size or hash"),
        (lambda m: m["files"][0].update(sha256="0" * 63), "size or hash"),
        (lambda m: m["tokenizer"].update(fingerprint="0" * 64), "tokenizer.json"),
        (lambda m: m.update(toolset_choice=None), "2 toolsets and no choice"),
        (lambda m: m["toolsets"].append(m["toolsets"][0]), "two toolsets named 'files'"),
        (lambda m: m["toolsets"][0]["selection"].update(adapter="absent"), "'absent'"),
        (lambda m: m["toolsets"][0]["selection"].update(prompt="../../secret"), "no '../../secret'"),
        (lambda m: m["toolsets"][0]["arguments"].pop("read"), "other stages than its tools need"),
        (lambda m: m["adapters"][0].update(path="/etc/passwd"), "no '/etc/passwd'"),
        (lambda m: m["adapters"].append(m["adapters"][0]), "two adapters"),
        (lambda m: m.update(no_tool="read"), "two tools named 'read'"),
    ],
)
def test_a_manifest_that_says_something_else(
    bundle: Path, change_manifest: Callable[[Change], None], change: Change, complaint: str
) -> None:
    change_manifest(change)
    refused(bundle, complaint)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"files": NaN}', b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none(bundle: Path, text: bytes) -> None:
    (bundle / MANIFEST).write_bytes(text)
    refused(bundle)


def test_a_manifest_that_is_not_canonical(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    refused(bundle, "not canonical")


def put(config: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for name in path:
        config = config.setdefault(name, {})
    config[last] = value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.decoder.session_options.custom_ops_library", "evil.so"),
        ("model.decoder.session_options.provider_options", [{"qnn": {"backend_path": "evil.so"}}]),
        ("model.decoder.session_options.ep.library_path", "evil.so"),
        ("model.decoder.session_options.use_env_allocators", True),
        ("model.decoder.pipeline", [{"x": {"filename": "model.onnx"}}]),
        ("model.decoder.filename", "../other/model.onnx"),
        ("model.decoder.inputs.input_ids", {"filename": "evil.so"}),
        ("model.decoder.run_options", {"a": "b"}),
        ("model.vision", {"filename": "evil.onnx"}),
        ("model.type", {"a": 1}),
        ("search.unknown", 1),
        ("engine", {}),
    ],
)
def test_a_genai_config_that_would_load_code_though_its_hash_is_right(
    bundle: Path, reseal: Callable[[], None], key: str, value: object
) -> None:
    path = bundle / "model" / "genai_config.json"
    config = json.loads(path.read_bytes())
    put(config, key, value)
    path.write_text(json.dumps(config), encoding="utf-8")
    reseal()
    refused(bundle, "genai_config.json")


@pytest.mark.parametrize("value", [[], 1, None, {}, {"model": []}, {"model": {"decoder": 1}}])
def test_a_genai_config_of_another_form(value: object) -> None:
    with pytest.raises(BundleError):
        check_genai_config(value, Path("genai_config.json"))


def test_the_merged_graphs_config_is_checked_too(bundle: Path, reseal: Callable[[], None]) -> None:
    (path,) = (bundle / "merged").glob("*/genai_config.json")
    path.write_text('{"custom_ops_library": "evil.so"}', encoding="utf-8")
    reseal()
    refused(bundle, "custom_ops_library")


def test_every_byte_is_read_before_a_bundle_is_given_out(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = plain_files.open_plain
    monkeypatch.setattr(plain_files, "open_plain", lambda path: opened.append(path) or real(path))
    open_bundle(exported)
    assert sorted(opened) == files(exported)


@pytest.mark.parametrize("name", ["empty", "model/empty", "prompts/a/b"])
def test_an_empty_folder(bundle: Path, name: str) -> None:
    (bundle / name).mkdir(parents=True)
    refused(bundle, "a folder without listed files")


@pytest.mark.parametrize(
    "name", [".DS_Store", "model/.DS_Store", "Thumbs.db", "prompts/desktop.ini", "._model", "model/._x"]
)
def test_what_a_system_leaves_in_any_folder_is_passed_over(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"left behind")
    assert open_bundle(bundle).manifest.toolsets


@pytest.mark.parametrize("name", [".DS_Store.so", ".hidden", "DS_Store", "Thumbs.db.exe", "desktop.ini/x", "a._b"])
def test_what_only_looks_like_it_is_not(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"")
    refused(bundle, "does not list|without listed files")


def test_a_link_named_like_it_is_not(bundle: Path, tmp_path: Path) -> None:
    (bundle / ".DS_Store").symlink_to(tmp_path)
    refused(bundle, "a link or a device")


def test_an_error_of_the_disk_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for failing in files(bundle):
        real = os.open

        def fail(path: Any, *arguments: Any, failing: Path = failing, real: Any = real) -> int:
            if Path(path) == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return int(real(path, *arguments))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            refused(bundle, "Input/output error|another hash, or none")


NUMBERS: dict[str, Change] = {
    "context": lambda m: m["base"].update(context_length=10**9),
    "no context": lambda m: m["base"].update(context_length=0),
    "a negative context": lambda m: m["base"].update(context_length=-1),
    "vocabulary": lambda m: m["base"].update(vocab_size=10**9),
    "a negative vocabulary": lambda m: m["base"].update(vocab_size=-5),
    "a huge vocabulary": lambda m: m["base"].update(vocab_size=2**70),
    "the tokenizer's": lambda m: m["tokenizer"].update(vocab_size=2**31),
    "layers": lambda m: m["cache"].update(layers=10**9),
    "no layers": lambda m: m["cache"].update(layers=0),
    "heads": lambda m: m["cache"].update(heads=10**9),
    "negative heads": lambda m: m["cache"].update(heads=-2),
    "head_dim": lambda m: m["cache"].update(head_dim=10**9),
    "negative head_dim": lambda m: m["cache"].update(head_dim=-64),
    "rank": lambda m: m["adapters"][0].update(rank=-4),
    "end of turn": lambda m: m["base"].update(end_of_turn=[2**70]),
    "a negative end of turn": lambda m: m["base"].update(end_of_turn=[-1]),
    "an end of turn behind the vocabulary": lambda m: m["base"].update(end_of_turn=[m["base"]["vocab_size"]]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_no_model_has(bundle: Path, change_manifest: Callable[[Change], None], name: str) -> None:
    change_manifest(NUMBERS[name])
    refused(bundle, "which is not from 1 to")


@pytest.mark.parametrize("name", ["../x.toml", "/etc/x.toml", "x.toml", "../x", "a/../b", "C:\\x", "", "x\0"])
def test_a_profile_that_is_no_name(bundle: Path, change_manifest: Callable[[Change], None], name: str) -> None:
    change_manifest(lambda manifest: manifest.update(profile=name))
    refused(bundle, "which is no name")


def test_a_prompt_of_two_stages(bundle: Path, change_manifest: Callable[[Change], None]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        stages = manifest["toolsets"][0]["arguments"]
        stages["sort"]["prompt"] = stages["read"]["prompt"]

    change_manifest(change)
    refused(bundle, "two stages with prompt")


def test_a_bundle_moves_as_a_folder(exported: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(exported, tmp_path / "ein Ordner mit Ä")
    assert open_bundle(moved).manifest == open_bundle(exported).manifest
