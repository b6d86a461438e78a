"""The licences of a bundle's parts: what the folders of base and adapters say, and the spec where they say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dualtune_edge.export.base.licence import LicenceText, read_licence, read_text
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.toolkit.bundle.licences import BASE_PART, LICENCES, LICENCES_DIR, Licences, PartLicence, SaidBy
from dualtune_edge.toolkit.errors import AdapterError, CheckpointError, EdgeError, SpecError
from dualtune_edge.toolkit.files import safe_name

_NAMED: Final = 3  # adapters that a warning names


@dataclass(frozen=True)
class PlannedLicences:
    """What a bundle says of its licences, and path → bytes of the texts that it carries."""

    licences: Licences
    texts: dict[str, bytes]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Whose licence is not known; empty: every part's is."""
        unknown = self.licences.unknown
        if not unknown:
            return ()
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        where = "in the folder's README.md (`license:`), by `licences` in the spec, or by --licence FILE"
        return (f"no licence is known of {', '.join(unknown[:_NAMED])}{more}: name it {where}",)

    def write_to(self, folder: Path) -> None:
        """Put them into the bundle that grows in `folder`."""
        (folder / LICENCES).write_bytes((self.licences.model_dump_json() + "\n").encode())
        for path, data in self.texts.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(data)


@dataclass(frozen=True)
class _Part:
    """The base or an adapter: its folder, and what the spec says of it."""

    kind: Literal["base", "adapter"]
    name: str
    folder: Path
    said: Path | None
    error: type[EdgeError]

    def planned(self) -> tuple[PartLicence, tuple[LicenceText, ...]]:
        """What the bundle says of it, and the texts."""
        own = read_licence(self.folder, self.error)
        if own.licence is None and self.said:
            text = read_text(self.said, SpecError)
            return self._part(text.licence, "export", None, (*own.texts, text))
        return self._part(own.licence, own.said_by, own.link, own.texts)

    def _part(
        self, licence: str | None, said_by: SaidBy | None, link: str | None, texts: tuple[LicenceText, ...]
    ) -> tuple[PartLicence, tuple[LicenceText, ...]]:
        paths = tuple(dict.fromkeys(map(_path, texts)))
        part = PartLicence(kind=self.kind, name=self.name, licence=licence, said_by=said_by, link=link, texts=paths)
        return part, texts


def plan_licences(spec: ExportSpec, inputs: Inputs) -> PlannedLicences:
    """Read the licences of all parts.

    Raises:
        CheckpointError, AdapterError: a card or a licence's text in the folder cannot be read.
        SpecError: a file that the spec names cannot be.

    """
    said = spec.licences
    base = _Part("base", BASE_PART, inputs.checkpoint.folder, said.base, CheckpointError)
    adapters = (
        _Part("adapter", adapter.name, adapter.folder, said.adapters, AdapterError) for adapter in inputs.adapters
    )
    planned = [part.planned() for part in (base, *adapters)]
    texts = {_path(text): text.data for _, own in planned for text in own}
    return PlannedLicences(Licences(parts=tuple(part for part, _ in planned)), texts)


def _path(text: LicenceText) -> str:
    """In the bundle: equal texts are there once."""
    return f"{LICENCES_DIR}/{text.sha256[:12]}-{safe_name(text.name.lower())}"
