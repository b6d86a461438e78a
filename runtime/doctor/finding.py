"""One line of a diagnosis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from dualtune_edge.toolkit.errors import EdgeError
from dualtune_edge.toolkit.frozen import Frozen


class Finding(Frozen):
    """What was examined and how it is. `note`: it works, with a loss or a risk; `wrong`: a call fails because of it."""

    about: str
    state: Literal["ok", "note", "wrong"]
    found: str
    expected: str = ""  # of a note or what is wrong, as the fix
    fix: str = ""


class Findings:
    """The lines of a diagnosis, in order."""

    def __init__(self) -> None:
        self.lines: list[Finding] = []

    def ok(self, about: str, found: str) -> None:
        """Add what is as it should be."""
        self.lines.append(Finding(about=about, state="ok", found=found))

    def note(self, about: str, found: str, *, expected: str = "", fix: str = "") -> None:
        """Add what works, with a loss or a risk."""
        self.lines.append(Finding(about=about, state="note", found=found, expected=expected, fix=fix))

    def wrong(self, about: str, found: str, *, expected: str, fix: str) -> None:
        """Add what lets a call fail."""
        self.lines.append(Finding(about=about, state="wrong", found=found, expected=expected, fix=fix))

    @contextlib.contextmanager
    def errors_of(self, about: str) -> Iterator[None]:
        """Add an error of this package, raised in the block, as what is wrong."""
        try:
            yield
        except EdgeError as error:
            self.wrong(about, f"{error.where}: {error.found}", expected=error.expected, fix=error.fix)
