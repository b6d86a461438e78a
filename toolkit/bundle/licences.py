"""Under which licences a bundle's parts may be given on: what their folders said, and the texts that came with them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.frozen import Frozen

LICENCES: Final = "licences.json"
LICENCES_DIR: Final = "licences"  # the texts, each once
BASE_PART: Final = "base"
UNKNOWN: Final = "LicenseRef-unknown"  # in expressions, where a part's licence is not known
EXPRESSION: Final = r"^[A-Za-z0-9.+:() -]+$"  # the characters of SPDX expressions
SaidBy: TypeAlias = Literal["card", "text", "export"]


class PartLicence(Frozen):
    """The licence of the base, or of an adapter.

    `licence`: an SPDX expression; what is on SPDX's list has its spelling there, anything else is a `LicenseRef-…`.
    None: nobody said. `said_by`: the model card, a text of the folder, or whoever exported. `link`: as the card has it.
    `texts`: paths in the bundle.
    """

    kind: Literal["base", "adapter"]
    name: str  # of the adapter; "base" for the base
    licence: Annotated[str, Field(pattern=EXPRESSION, max_length=limits.NAME_CHARS * 8)] | None
    said_by: SaidBy | None
    link: str | None = None
    texts: tuple[str, ...] = ()


class Licences(Frozen):
    """The whole of `licences.json`: the base, then the adapters in the manifest's order."""

    parts: Annotated[tuple[PartLicence, ...], Field(min_length=1)]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the parts whose licence nobody said."""
        return tuple(part.name for part in self.parts if part.licence is None)

    @property
    def expression(self) -> str:
        """The SPDX expression of the whole: every part's licence holds."""
        licences = sorted({part.licence or UNKNOWN for part in self.parts})
        compound = len(licences) > 1
        return " AND ".join(f"({licence})" if compound and " " in licence else licence for licence in licences)

    def line(self) -> str:
        """In a line: `base Apache-2.0; 27 adapters unknown`."""
        groups: dict[str, int] = {}
        for part in self.parts:
            if part.kind == "adapter":
                groups[part.licence or "unknown"] = groups.get(part.licence or "unknown", 0) + 1
        bases = [f"base {part.licence or 'unknown'}" for part in self.parts if part.kind == "base"]
        adapters = [f"{count} adapter{'s' * (count > 1)} {licence}" for licence, count in groups.items()]
        return "; ".join((*bases, *adapters))
