import errno
import json
import subprocess
import sys
import types

import pytest

from dualtune_edge import cli
from dualtune_edge.toolkit import shell
from dualtune_edge.toolkit.errors import FileError, ProfileError

HEAVY = {"onnxruntime", "onnxruntime_genai", "torch", "transformers", "numpy", "llguidance"}


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module in the place of every command's, whose `fail` raises what the test puts there."""
    module = types.ModuleType("failing")

    def fail() -> None:
        """Fail."""
        raise module.error

    module.fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing", module)
    monkeypatch.setitem(cli.COMMANDS, "fail", shell.Row("failing", "fail", "Fail."))
    return module


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from dualtune_edge import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8").stdout
    assert text.rstrip().endswith("[]")
    for name, row in cli.COMMANDS.items():
        assert name in text
        assert row.summary in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "dualtune-edge 0.1.0\n"


def test_an_unknown_command_tells_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exprt") == 2
    assert "Did you mean 'export'" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_each_command_shows_its_summary_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert cli.COMMANDS[name].summary in text
    if "COMMAND [ARGS]" not in text:
        assert f"Example: dualtune-edge {name}" in text
        assert "--json" in text or name == "serve"  # it ends without a result; its lines are JSON in any case


def test_an_error_is_two_lines_and_its_exit_code(failing: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    failing.error = ProfileError("here", found="this", expected="that", fix="Do so.")
    assert run("fail") == ProfileError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: here: found this; expected that.\nDo so.\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "Input/output error", "/disk/a"), "/disk/a: found Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/a"), "/srv/a: found Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file: found No space left on device"),
        (OSError(), "a file: found OSError"),
    ],
)
def test_an_error_of_the_system_is_no_traceback(
    failing: types.ModuleType, capsys: pytest.CaptureFixture[str], error: OSError, message: str
) -> None:
    failing.error = error
    assert run("fail") == FileError.exit_code
    assert capsys.readouterr().err.startswith(f"error: {message}; expected")


def test_an_error_with_json_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("profiles", "show", "x86-64-avx", "--json") == ProfileError.exit_code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    error = json.loads(out)["error"]
    assert set(error) == {"type", "where", "found", "expected", "fix"}
    assert (error["type"], error["where"]) == ("ProfileError", "profile 'x86-64-avx'")


def test_a_missing_build_side_package_names_the_extra(
    failing: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    assert run("fail") == 15
    assert "pip install 'dualtune-edge[export]'" in capsys.readouterr().err


def test_an_interrupt_while_packages_are_imported_has_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "application", interrupted)
    assert run("call") == 130


def test_another_missing_package_is_a_defect(failing: types.ModuleType) -> None:
    failing.error = ModuleNotFoundError("No module named 'spam'", name="spam")
    with pytest.raises(ModuleNotFoundError):
        cli.main(["fail"])


def test_help_and_example() -> None:
    def command() -> None:
        """Do a thing.

        At length.

        Raises:
            Nothing: ever.

        Example:
            dualtune-edge do

        """

    assert shell.help_and_example(command) == ("Do a thing.\n\nAt length.", "\b\nExample:\n    dualtune-edge do")
