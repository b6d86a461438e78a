"""An export that was killed, or failed, goes on from what it had finished; the bundle is the same, byte for byte."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig

from dualtune_edge.export import models, run
from dualtune_edge.export.build import graphs
from dualtune_edge.export.plan import steps
from dualtune_edge.export.publish.report import ExportReport
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.export.work.folder import Work, kept_bytes, partial
from dualtune_edge.export.work.journal import JOURNAL, Step
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import OutputError, ParityError, SpecError

TOOLS = [
    {"name": "read", "description": "Read a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
    {"name": "write", "description": "Write a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
]
SPEC = """\
base: base
parity: {prompts: 1, argument_tokens: 4}
toolsets: [{name: files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}]
"""
ALL = (
    "adapters/selection.files.onnx_adapter", "adapters/selection.files.onnx_adapter, tried out",
    "arguments.files.read, compared", "arguments.files.write, compared",
    "merged/arguments.files.read", "merged/arguments.files.read, tried out", "model", "model, tried out",
    "model/model.onnx", "selection.files, compared", "states/arguments.files.read.kv",
    "states/arguments.files.write.kv", "states/selection.files.kv",
)  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_checkpoint(folder / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "two", "three")):
        write_adapter(folder / name, folder / "base", config, seed=seed)
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (folder / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(desk: Path) -> Path:
    """Exported without an interruption."""
    assert export(desk, desk / "whole").reused == ()
    return desk / "whole"


def export(desk: Path, output: Path, *, reuse: Path | None = None, spec: str = SPEC) -> ExportReport:
    path = desk / f"{output.name}.yaml"
    path.write_text(spec, encoding="utf-8")
    return run.run(read_spec(path), output, reuse=reuse)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(output: Path) -> Path:
    return partial(output) / "bundle"


class Killed(BaseException):
    """Not one that anything catches."""


def test_what_a_kill_leaves_at_each_part(
    desk: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work folder as it is when a part's files are there, and when the journal says so: for each part of an export.

    The next export finds all that is finished in it, and nothing else; some of them are carried to the end.
    """
    finished: list[Step] = []
    left: list[tuple[Path, list[Step]]] = []  # outputs, and what is finished of them

    def leave(work: Work) -> None:
        left.append((tmp_path / f"left {len(left)}", [*finished]))
        shutil.copytree(work.folder, kept(left[-1][0]))

    def keep(work: Work, step: Step, *files: Path, value: str = "") -> None:
        leave(work)
        real(work, step, *files, value=value)
        finished.append(step)
        leave(work)

    real = Work.keep
    with monkeypatch.context() as patched:
        patched.setattr(Work, "keep", keep)
        export(desk, tmp_path / "bundle")
    assert sorted(step.name for step in finished) == sorted(ALL)
    for output, there in left:
        with Work(output) as work:
            assert [step for step in finished if work.has(step)] == there
            journal = json.loads((work.folder / JOURNAL).read_bytes()) if there else {"parts": []}
            claimed = {file["path"] for part in journal["parts"] for file in part["files"]}
            assert contents(work.folder).keys() == claimed | ({JOURNAL} if there else set())
    for output, there in left[::5]:
        assert sorted(export(desk, output).reused) == sorted(step.name for step in there)
        assert contents(output) == contents(whole)
    assert not partial(left[0][0]).exists()


def test_killed_by_the_system(desk: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL, or what Windows has of it, between a part's files and the journal."""
    script = """
import gc, os, signal, sys
from pathlib import Path
from dualtune_edge.export import run
from dualtune_edge.export.work import folder as work_folder
from dualtune_edge.export.spec.document import read_spec
def sync(path):
    if path.name.endswith(".onnx_adapter"):
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
work_folder.sync = sync
gc.freeze()  # as the command line does
run.run(read_spec(Path(sys.argv[1])), Path(sys.argv[2]))
"""
    (desk / "killed.yaml").write_text(SPEC, encoding="utf-8")
    output = tmp_path / "bundle"
    died = subprocess.run(
        [sys.executable, "-c", script, desk / "killed.yaml", output], check=False, capture_output=True
    )
    assert abs(died.returncode) in {signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)}
    assert {"lock", "bundle"} == {path.name for path in partial(output).iterdir()}
    assert export(desk, output).reused == ("model", "model/model.onnx")
    assert contents(output) == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}


@pytest.fixture
def ready(whole: Path, tmp_path: Path) -> Path:
    """The output of an export that was killed when all was done but its name."""
    output = tmp_path / "bundle"
    shutil.copytree(whole, kept(output))
    return output


def test_a_damaged_file_is_made_again(desk: Path, whole: Path, ready: Path) -> None:
    damages: dict[str, Callable[[bytes], bytes]] = {
        "model/model.onnx": lambda content: content[:-1],
        "states/selection.files.kv": lambda content: bytes([content[0] ^ 1]) + content[1:],
        "merged/arguments.files.read/model.onnx.data": lambda content: content + b"x",
    }
    for path, damage in damages.items():
        (kept(ready) / path).write_bytes(damage((kept(ready) / path).read_bytes()))
    report = export(desk, ready)
    remade = {"model", "model/model.onnx", "states/selection.files.kv", "merged/arguments.files.read"}
    assert {*ALL} - {*report.reused} == remade  # the graph without slots is not in a bundle
    assert contents(ready) == contents(whole)


def test_a_missing_file_is_made_again(desk: Path, whole: Path, ready: Path) -> None:
    (kept(ready) / "adapters" / "selection.files.onnx_adapter").unlink()
    assert {*ALL} - {*export(desk, ready).reused} == {"adapters/selection.files.onnx_adapter"}
    assert contents(ready) == contents(whole)


@pytest.mark.parametrize("journal", [b"", b"{}", b'{"parts":[{"name":"', b"\xff", None])
def test_without_its_journal_nothing_is_used(ready: Path, journal: bytes | None) -> None:
    (kept(ready) / JOURNAL).unlink()
    if journal is not None:
        (kept(ready) / JOURNAL).write_bytes(journal)
    with Work(ready) as work:
        assert contents(work.folder).keys() <= {JOURNAL}
    assert list(ready.parent.iterdir()) == []


def test_a_journal_that_leads_out_of_its_folder_is_not_followed(ready: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine", encoding="utf-8")
    text = (kept(ready) / JOURNAL).read_text(encoding="utf-8").replace("model/model.onnx.data", "../../mine")
    (kept(ready) / JOURNAL).write_text(text, encoding="utf-8")
    with Work(ready) as work:
        work.clear(work.folder / "model")
    assert mine.read_text(encoding="utf-8") == "mine"


def test_what_else_lies_there_is_removed(desk: Path, whole: Path, ready: Path) -> None:
    (kept(ready) / "scratch" / "old").mkdir(parents=True)
    (kept(ready) / "scratch" / "old" / "half").write_text("x", encoding="utf-8")
    (kept(ready) / "model" / "half.partial").write_text("x", encoding="utf-8")
    export(desk, ready)
    assert contents(ready) == contents(whole)


# ---- other settings ----


def remade(desk: Path, output: Path, spec: str, **to: Path) -> set[str]:
    report = export(desk, output, spec=spec, **to)
    names = {part["name"] for part in json.loads((output / JOURNAL).read_bytes())["parts"]}
    return names - {*report.reused}


def test_another_adapter_leaves_what_does_not_depend_on_it(desk: Path, ready: Path, tmp_path: Path) -> None:
    spec = SPEC.replace("selection: one", "selection: three")
    own = "adapters/selection.files.onnx_adapter"
    mine = {own, f"{own}, tried out", "selection.files, compared", "states/selection.files.kv"}
    assert remade(desk, ready, spec) == mine
    export(desk, tmp_path / "anew", spec=spec)
    assert contents(ready) == contents(tmp_path / "anew")


def test_another_quantization_makes_all_graphs_again(desk: Path, ready: Path, tmp_path: Path) -> None:
    spec = SPEC + "quantization: {block_size: 64}\n"
    assert remade(desk, ready, spec) == {*ALL} - {"adapters/selection.files.onnx_adapter"}
    export(desk, tmp_path / "anew", spec=spec)
    assert contents(ready) == contents(tmp_path / "anew")


def test_other_limits_make_nothing_again(desk: Path, tmp_path: Path) -> None:
    """What an export that failed has finished is kept too."""
    output = tmp_path / "bundle"
    with pytest.raises(ParityError):
        export(desk, output, spec=SPEC.replace("prompts: 1", "prompts: 1, limits: {max_kl: 0}"))
    assert not output.exists()
    assert {name for name in ALL if "states/" in name} == remade(desk, output, SPEC)


def test_a_refused_recipe_is_not_built_again(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = (Quantization(block_size=128), Quantization(block_size=64))
    monkeypatch.setattr(models, "quantizations_for", lambda *_: recipes)
    built: list[Quantization] = []

    def build_graph(checkpoint: object, out: Path, quantization: Quantization, **kwargs: object) -> None:
        built.append(quantization)
        if quantization == recipes[1] and len(built) == 3:  # after the first one, and the graph in float32
            raise Killed
        real(checkpoint, out, quantization, **kwargs)

    real = graphs.build_graph
    monkeypatch.setattr(graphs, "build_graph", build_graph)
    spec = SPEC.replace("prompts: 1", "prompts: 1, limits: {max_kl: 0}").replace(", mode: merged", "")
    with pytest.raises(Killed):
        export(desk, tmp_path / "bundle", spec=spec)
    assert built == [recipes[0], Quantization(bits=32), recipes[1]]
    with pytest.raises(ParityError):
        export(desk, tmp_path / "bundle", spec=spec)
    assert built[3:] == [recipes[1]]


def test_other_tools_make_everything_again(desk: Path, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_tools", lambda: {"torch": "99"})
    assert remade(desk, ready, SPEC) == {*ALL}


def test_what_is_no_longer_asked_for_goes(desk: Path, ready: Path) -> None:
    spec = SPEC.replace(", arguments: {read: {path: two, mode: merged}}", "")
    export(desk, ready, spec=spec)
    assert not (ready / "merged").exists()
    assert b"merged" not in (ready / JOURNAL).read_bytes()


# ---- another bundle ----


def test_a_further_merged_adapter_reuses_the_rest(desk: Path, whole: Path, tmp_path: Path) -> None:
    spec = SPEC.replace("mode: merged}", "mode: merged}, write: {path: three, mode: merged}")
    output, own = tmp_path / "bundle", "merged/arguments.files.write"
    mine = {own, f"{own}, tried out", "arguments.files.write, compared", "states/arguments.files.write.kv"}
    before = contents(whole)
    assert remade(desk, output, spec, reuse=whole) - {"base, compared"} == mine
    assert contents(whole) == before
    export(desk, tmp_path / "anew", spec=spec)
    assert contents(output) == contents(tmp_path / "anew")


def test_a_damaged_bundle_lends_what_is_whole(desk: Path, whole: Path, tmp_path: Path) -> None:
    lender = Path(shutil.copytree(whole, tmp_path / "lender"))
    (lender / "merged" / "arguments.files.read" / "model.onnx").write_bytes(b"")
    (lender / "states" / "selection.files.kv").unlink()
    assert remade(desk, tmp_path / "bundle", SPEC, reuse=lender) == {
        "merged/arguments.files.read",
        "states/selection.files.kv",
    }
    assert contents(tmp_path / "bundle") == contents(whole)


def test_a_folder_without_a_journal_lends_nothing(desk: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=JOURNAL):
        export(desk, tmp_path / "out" / "bundle", reuse=desk / "base")
    assert not (tmp_path / "out").exists()


# ---- two at once ----


def test_a_second_export_to_the_same_place_is_refused(desk: Path, whole: Path, ready: Path) -> None:
    with Work(ready), pytest.raises(OutputError, match="another export") as caught:
        export(desk, ready)
    assert caught.value.where == str(ready)
    export(desk, ready)  # the other one has ended
    assert contents(ready) == contents(whole)


@pytest.mark.parametrize("name", ["file/bundle", "n" * 250])
def test_where_nothing_can_be_kept_it_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="a place to write"):
        kept_bytes(tmp_path / name)
    with pytest.raises(OutputError), Work(tmp_path / name):
        pass


@pytest.mark.parametrize("locked", [True, False])
def test_what_a_kill_behind_the_last_step_leaves_is_removed(tmp_path: Path, *, locked: bool) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    partial(output).mkdir()
    if locked:
        (partial(output) / "lock").touch()
    with pytest.raises(OutputError, match="already there"), Work(output):
        pass
    assert list(tmp_path.iterdir()) == [output]


def test_parts_that_are_kept_stay_where_the_output_is_taken(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    kept = Work(output).folder
    kept.mkdir(parents=True)
    with pytest.raises(OutputError, match="already there"), Work(output):
        pass
    assert kept.is_dir()


def test_another_place_is_free(tmp_path: Path) -> None:
    with Work(tmp_path / "one") as one, Work(tmp_path / "other") as other:
        assert one.folder != other.folder
    assert list(tmp_path.iterdir()) == []
