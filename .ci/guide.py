"""Runs the guide: every shell line of its pages, one after the other, each page in a folder with links to this one.

Lines that install are left out, as is what makes gigabytes of random weights: CI has made the environments.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LEFT_OUT: Final = re.compile(r"pip install|-m venv|bin/activate|random_checkpoint large")
SPEC: Final = "dualtune.yaml"
PAGES: Final = ("guide.md", "first-bundle.md")


def main() -> None:
    """Run the pages, or those that are named. Ends in `SystemExit`, with the code of the line that failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and what the lines started ends with it
    for name in sys.argv[1:] or PAGES:
        if code := run((ROOT / "docs" / name).read_text(encoding="utf-8")):
            sys.exit(code)


def run(page: str) -> int:
    """The exit code of a page's lines."""
    with tempfile.TemporaryDirectory() as scratch:
        for path in ROOT.iterdir():
            (Path(scratch) / path.name).symlink_to(path)
        for spec in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):  # one, or none
            (Path(scratch) / SPEC).write_text(spec, encoding="utf-8")
        script = "\n".join(["set -eux", *lines(page)])
        path = os.pathsep.join((str(ROOT / ".venv" / "bin"), os.environ["PATH"]))
        environment = {**os.environ, "PATH": path, "PWD": scratch}
        shell = subprocess.Popen(["/bin/sh", "-c", script], cwd=scratch, env=environment, start_new_session=True)  # noqa: S603 - the guide's own lines
        try:
            return shell.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)  # what a line that failed has left in the background


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
