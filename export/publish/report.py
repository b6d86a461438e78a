"""The report of a finished export, which `export --json` prints."""

from __future__ import annotations

from dualtune_edge.export.plan.copied import CopiedStanding
from dualtune_edge.export.work.progress import PhaseReport
from dualtune_edge.toolkit.bundle.licences import Licences
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.sharing import VariantSize
from dualtune_edge.toolkit.frozen import Frozen


class Sizes(Frozen):
    """Bytes of the bundle's parts; `variants`: files of models other than the primary one."""

    model: int
    adapters: int
    merged: int
    prompts: int
    states: int
    variants: int
    total: int


class ExportReport(Frozen):
    """One export that was published at `path`.

    `reused`: names of parts that an earlier export had finished; `copied`: properties whose texts are pieces of the
    conversation, and why; `parity`: the comparison of the primary model.
    """

    path: str
    seconds: float
    phases: tuple[PhaseReport, ...]
    reused: tuple[str, ...]
    sizes: Sizes
    variants: tuple[VariantSize, ...]
    copied: tuple[CopiedStanding, ...]
    licences: Licences
    warnings: tuple[str, ...]
    parity: ParityReport
