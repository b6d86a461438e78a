import re
import shlex
from pathlib import Path

import pytest
import typer.main

from dualtune_edge import cli
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.toolkit import shell

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The words of every `dualtune-edge …` in a page's code blocks."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [shlex.split(line.removeprefix("$ ")) for line in lines if line.removeprefix("$ ").startswith(shell.PROGRAM)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_and_flag_exists(page: Path) -> None:
    for _, *words in commands(page):
        command = typer.main.get_command(shell.application(cli.COMMANDS, words[:1]))
        while inner := getattr(command, "commands", None):
            command = inner[words.pop(0)]
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert [word for word in words if word.startswith("-") and word not in known] == []


def test_the_guides_spec_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "dualtune.yaml"
    path.write_text(re.sub(r"\bkit/dual", f"{ROOT.as_posix()}/kit/dual", text), encoding="utf-8")
    spec = read_spec(path)
    assert [toolset.name for toolset in spec.toolsets] == ["filesystem", "git"]
