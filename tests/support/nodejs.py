"""Node.js with the packages that `make clients` installs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

_CLIENTS: Final = Path(__file__).resolve().parents[2] / ".tools" / "serve-clients"
MISSING: Final = "" if (_CLIENTS / "installed").exists() else "the clients of npm are not installed; run: make clients"


def run(folder: Path, script: str, *arguments: str) -> str:
    """Run a module in `folder`, where it finds the packages: what it prints."""
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(_CLIENTS / "node_modules")
    (folder / "script.mjs").write_text(script, encoding="utf-8")
    node = shutil.which("node", path=str(_CLIENTS / "bin"))
    assert node
    command = [node, "script.mjs", *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
