"""`optimum-cli export dualtune-edge` is `dualtune-edge export`, found by Optimum itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path


def optimum_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = shutil.which("optimum-cli", path=Path(sys.executable).parent)
    assert command
    return subprocess.run([command, "export", *arguments], capture_output=True, encoding="utf-8", check=False)


def test_its_help_is_the_commands_own() -> None:
    listed, own = optimum_cli("--help"), optimum_cli("dualtune-edge", "--help")
    assert "Compile a base model and its LoRA adapters into a bundle." in listed.stdout
    assert own.returncode == 0
    assert "Usage: dualtune-edge export" in own.stdout
    assert "--selection" in own.stdout


def test_flags_and_errors_go_through(tmp_path: Path) -> None:
    (tmp_path / "t.json").touch()
    asked = ("--base", str(tmp_path / "none"), "--tools", str(tmp_path / "t.json"), "-o", str(tmp_path / "b"), "--json")
    result = optimum_cli("dualtune-edge", *asked)
    assert result.returncode == 3
    assert json.loads(result.stdout)["error"]["where"] == "--base"
