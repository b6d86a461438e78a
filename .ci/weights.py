"""Prints what each package of an environment weighs, in MB of 1e6 bytes, the heaviest first, and the whole.

Usage: python .ci/weights.py ENVIRONMENT
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Final

_SMALL: Final = 1.0  # MB: lighter packages are one line


def main() -> None:
    """Weigh the environment that is given."""
    environment = Path(sys.argv[1])
    (site,) = (*environment.glob("lib/python3*/site-packages"), *environment.glob("Lib/site-packages"))
    weights = {found.name: weight(found) for found in metadata.distributions(path=[str(site)])}
    heavy = {name: size for name, size in weights.items() if size >= _SMALL}
    for name, size in sorted(heavy.items(), key=lambda item: -item[1]):
        sys.stdout.write(f"{size:7.1f}  {name}\n")
    rest = sum(weights.values()) - sum(heavy.values())
    whole = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    sys.stdout.write(f"{rest:7.1f}  {len(weights) - len(heavy)} others\n{whole / 1e6:7.1f}  all\n")


def weight(distribution: metadata.Distribution) -> float:
    """Its files, with the bytecode that pip has compiled of them."""
    files = [Path(str(file.locate())) for file in distribution.files or ()]
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
