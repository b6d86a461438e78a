import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dualtune_edge import cli
from dualtune_edge.export import run as export_run
from dualtune_edge.export.plan.copied import CopiedStanding
from dualtune_edge.export.publish.report import ExportReport, Sizes
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.export.spec.parts import ParitySpec
from dualtune_edge.export.work.progress import PhaseReport
from dualtune_edge.toolkit.bundle.licences import Licences, PartLicence
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.errors import OutputError, SpecError

REPORT = ExportReport(
    path="bundle",
    seconds=12.3,
    phases=(PhaseReport(name="plan prompts", seconds=0.1, peak_mb=100.0),),
    reused=(),
    sizes=Sizes(model=2_000_000, adapters=1_000_000, merged=0, prompts=10, states=0, variants=0, total=3_000_100),
    variants=(),
    copied=(
        CopiedStanding(
            toolset="files", tool="read", copied=CopiedProperty(name="path"), declared=False, values=40, standing=40
        ),
    ),
    licences=Licences(parts=(PartLicence(kind="base", name="base", licence="MIT", said_by="card"),)),
    warnings=("tool 'read' has no adapter",),
    parity=ParityReport(skipped="a test"),
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("base", "chooser", "writers"):
        (tmp_path / folder).mkdir()
    (tmp_path / "files.json").write_text("[]", encoding="utf-8")
    text = "base: base\nmode: merged\ntoolsets: [{name: files, tools: files.json, selection: chooser}]\n"
    (tmp_path / "dualtune.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ExportSpec, Path]]:
    """What the command asks the stages for; they answer with REPORT."""
    calls: list[tuple[ExportSpec, Path]] = []

    def run(
        spec: ExportSpec, output: Path, *, on_comparison: Callable[[str, ParityReport], None], **_: object
    ) -> ExportReport:
        calls.append((spec, output))
        on_comparison("model", REPORT.parity)
        return REPORT

    monkeypatch.setattr(export_run, "run", run)
    return calls


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", *arguments])
    return ended.value.code


@pytest.mark.usefixtures("desk")
def test_a_spec_is_exported(asked: list[tuple[ExportSpec, Path]]) -> None:
    assert exit_code("dualtune.yaml", "-o", "bundle") == 0
    assert asked == [(read_spec(Path("dualtune.yaml")), Path("bundle"))]


@pytest.mark.usefixtures("desk")
def test_flags_are_exported(asked: list[tuple[ExportSpec, Path]]) -> None:
    flags = ["--base", "base", "--tools", "files.json", "--selection", "chooser", "--arguments", "writers"]
    assert exit_code(*flags, "--mode", "merged", "--profile", "cpu-x64", "--profile", "openvino", "-o", "bundle") == 0
    expected = ExportSpec.from_flags(
        Path("base"), Path("files.json"), selection=Path("chooser"), arguments=Path("writers"), mode="merged"
    )
    assert asked == [(expected.model_copy(update={"profiles": ("cpu-x64", "openvino")}), Path("bundle"))]


@pytest.mark.usefixtures("desk", "asked")
def test_the_result_is_on_stdout_and_warnings_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code("dualtune.yaml", "-o", "bundle")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "bundle: 3.0 MB (base 2.0 MB, adapters 1.0 MB) in 12 s",
        "licences        base MIT",
        "copied          files.read path: words (40 of 40 values in the data)",
    ]
    assert err == "parity: not compared: a test\nwarning: tool 'read' has no adapter\n"


@pytest.mark.usefixtures("desk", "asked")
def test_json_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code("dualtune.yaml", "-o", "bundle", "--json")
    assert ExportReport.model_validate_json(capsys.readouterr().out) == REPORT


@pytest.mark.usefixtures("desk")
def test_flags_say_how_it_is_compared(asked: list[tuple[ExportSpec, Path]]) -> None:
    assert exit_code("dualtune.yaml", "--no-parity", "-o", "bundle") == 0
    assert exit_code("dualtune.yaml", "--calibration", "own.jsonl", "-o", "bundle") == 0
    (off, _), (own, _) = asked
    assert off.parity is None
    assert own.parity == ParitySpec(calibration=Path("own.jsonl"))


@pytest.mark.usefixtures("desk", "asked")
def test_a_file_to_compare_on_and_no_comparison_is_refused(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--calibration", "own.jsonl", "-o", "bundle", "--json"]
    assert exit_code("dualtune.yaml", "--no-parity", *flags) == SpecError.exit_code
    with (desk / "dualtune.yaml").open("a", encoding="utf-8") as file:
        file.write("parity: off\n")
    assert exit_code("dualtune.yaml", *flags) == SpecError.exit_code
    assert capsys.readouterr().out.count("no comparison") == 2


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["dualtune.yaml", "--mode", "merged"], "dualtune.yaml together with --mode"),
        (["dualtune.yaml", "--base", "base", "--tools", "files.json"], "dualtune.yaml together with --base, --tools"),
        (["--base", "base"], "--base"),
        ([], "neither a spec nor flags"),
    ],
)
@pytest.mark.usefixtures("desk")
def test_half_of_a_form_is_refused(
    arguments: list[str], found: str, asked: list[tuple[ExportSpec, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments, "-o", "bundle", "--json") == SpecError.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["type"], error["found"]) == ("SpecError", found)
    assert asked == []


@pytest.mark.usefixtures("desk")
def test_an_error_of_a_stage_ends_with_its_code(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "bundle").mkdir()
    assert exit_code("dualtune.yaml", "-o", "bundle") == OutputError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: bundle: found something already there")
    assert "Traceback" not in err


def test_the_help_shows_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    assert "dualtune-edge export dualtune.yaml -o bundle" in out
    assert "--arguments adapters/arguments -o bundle" in out
