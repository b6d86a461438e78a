"""Runs the guide: every shell line of docs/guide.md, one after the other, in a folder with links to this checkout.

Lines that install are left out, as is what makes gigabytes of random weights: CI has made the environments.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LEFT_OUT: Final = re.compile(r"pip install|-m venv|bin/activate|random_checkpoint large")
SPEC: Final = "dualtune.yaml"


def main() -> None:
    """Run it. Ends in `SystemExit`, with the code of the line that failed."""
    page = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        for path in ROOT.iterdir():
            (Path(scratch) / path.name).symlink_to(path)
        (spec,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        (Path(scratch) / SPEC).write_text(spec, encoding="utf-8")
        script = "\n".join(["set -eux", *lines(page)])
        path = os.pathsep.join((str(ROOT / ".venv" / "bin"), os.environ["PATH"]))
        run = subprocess.run(["/bin/sh", "-c", script], cwd=scratch, env={**os.environ, "PATH": path}, check=False)  # noqa: S603 - the guide's own lines
    sys.exit(run.returncode)


def lines(page: str) -> list[str]:
    """The shell lines, those that end in a backslash with what follows."""
    found = []
    for kind, block in re.findall(r"```(sh|console)\n(.*?)```", page, re.DOTALL):
        text = block.replace("\\\n", " ")
        if kind == "console":
            text = "\n".join(line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
        found += [line for line in text.splitlines() if not LEFT_OUT.search(line)]
    return found


if __name__ == "__main__":
    main()
