"""Writes folders of notes that conversations begin with: FOLDER/1, FOLDER/2, … Each run writes the same."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Final

FOLDERS: Final = 20
NOTES: Final = 6
WORDS: Final = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()


def main() -> None:
    """Write them into the folder that is named."""
    rng = Random(0)  # noqa: S311 - words, not secrets
    for number in range(1, FOLDERS + 1):
        folder = Path(sys.argv[1]) / str(number)
        folder.mkdir(parents=True)
        for _ in range(NOTES):
            first, second, *text = rng.sample(WORDS, 5)
            (folder / f"{first}-{second}.txt").write_text(" ".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
