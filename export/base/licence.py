"""Under which licence a model's or adapter's folder may be given on: its model card, and the texts beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from license_expression import ExpressionError, get_spdx_licensing

from dualtune_edge.export.base.content import require_content
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.licences import EXPRESSION
from dualtune_edge.toolkit.errors import EdgeError

CARD: Final = "README.md"
_TEXT: Final = re.compile(r"(licen[cs]es?|copying|notice|use[_-]policy)([._-].*)?", re.IGNORECASE)
_FRONT_MATTER: Final = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
_IDENTIFIER: Final = re.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
_REFERENCE: Final = "LicenseRef-"
_SPDX: Final = get_spdx_licensing()
_NO_LICENCE: Final = frozenset({"", "none", "unknown"})
_SOME_LICENCE: Final = "other"  # on Hugging Face's hub: `license_name` and `license_link` say which


@dataclass(frozen=True)
class LicenceText:
    """A file with a licence's words."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def licence(self) -> str:
        """What its `SPDX-License-Identifier` says; without one a name by its hash, for the text to be found by."""
        found = _IDENTIFIER.search(self.data.decode(errors="replace"))
        named = found and spdx(found[1].strip().removesuffix("*/").removesuffix("-->"))
        return named or f"{_REFERENCE}text-{self.sha256[:12]}"


@dataclass(frozen=True)
class FolderLicence:
    """What a folder says of its licence; `licence` None: nothing."""

    licence: str | None
    said_by: Literal["card", "text"] | None
    link: str | None
    texts: tuple[LicenceText, ...]


def read_licence(folder: Path, error: type[EdgeError]) -> FolderLicence:
    """What a folder in Hugging Face's format says of its licence.

    The card's front matter counts (`license`, `license_name`, `license_link`); where it says nothing, the texts of
    licences beside it. NOTICE files and use policies come along, and name no licence.

    Args:
        folder: of the base or of an adapter.
        error: the class of errors.

    Raises:
        EdgeError: of this class: a card or text cannot be read.

    """
    texts = tuple(_texts(folder, error))
    card = _front_matter(folder / CARD, error)
    link = card.get("license_link")
    named = _named(card)
    if named:
        return FolderLicence(named, "card", link if isinstance(link, str) else None, texts)
    licences = sorted({text.licence for text in texts if re.match(r"licen[cs]e|copying", text.name, re.IGNORECASE)})
    return FolderLicence(" AND ".join(licences) or None, "text" if licences else None, None, texts)


def read_text(path: Path, error: type[EdgeError]) -> LicenceText:
    """The file of a licence.

    Raises:
        EdgeError: of this class: it cannot be read, or is too large.

    """
    require_content(path, error)
    try:
        with path.open("rb") as file:
            data = file.read(limits.LICENCE_BYTES + 1)
    except OSError as fault:
        raise error(str(path), found=str(fault), expected="the text of a licence", fix="Check the path.") from None
    if len(data) > limits.LICENCE_BYTES:
        raise error(
            str(path),
            found=f"over {limits.LICENCE_BYTES} bytes",
            expected="the text of a licence",
            fix="Move the file elsewhere, if it is none.",
        )
    return LicenceText(path.name, data)


def spdx(name: str) -> str | None:
    """An SPDX expression: as it is written on SPDX's list, or a `LicenseRef-…` for what is not there. None: no name."""
    if name.strip().lower() in _NO_LICENCE:
        return None
    try:
        parsed = _SPDX.parse(name, strict=True)
        known = all(str(key).startswith(_REFERENCE) for key in _SPDX.unknown_license_keys(parsed))
    except ExpressionError:
        known = False
    if known and re.fullmatch(EXPRESSION, expression := str(parsed.render())):
        return expression
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")[: limits.NAME_CHARS]
    return _REFERENCE + (plain or hashlib.sha256(name.encode()).hexdigest())


def _named(card: dict[str, Any]) -> str | None:
    """The licence that a card's front matter names; of several, all."""
    value = card.get("license")
    names = [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    other = card.get("license_name")
    names = [other if name == _SOME_LICENCE and isinstance(other, str) else name for name in names]
    found = sorted({licence for name in names if name != _SOME_LICENCE and (licence := spdx(name))})
    return " AND ".join(f"({name})" if len(found) > 1 and " " in name else name for name in found) or None


def _front_matter(path: Path, error: type[EdgeError]) -> dict[str, Any]:
    """The YAML at the head of a model card; empty where there is none that can be read."""
    require_content(path, error)
    try:
        with path.open("rb") as file:
            text = file.read(limits.LICENCE_BYTES).decode("utf-8-sig", errors="replace")
        found = _FRONT_MATTER.match(text)
        value = yaml.safe_load(found[1]) if found else None
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise error(str(path), found=str(fault), expected="a model card", fix="Check its permissions.") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _texts(folder: Path, error: type[EdgeError]) -> Iterator[LicenceText]:
    for path in sorted(folder.iterdir()):
        if _TEXT.fullmatch(path.name) and not path.is_dir():
            yield read_text(path, error)
