"""The chat template of a Hugging Face folder, a base's or an adapter's: of several, the one for prompts with tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dualtune_edge.export.base.content import require_content
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import CHAT_TEMPLATE, read_source

TOKENIZER_CONFIG: Final = "tokenizer_config.json"
_FURTHER: Final = "additional_chat_templates"  # a folder of templates, named after their use
_ORDER: Final = ("tool_use", "default")


@dataclass(frozen=True)
class TemplateText:
    """A template's Jinja text, and where it stands."""

    where: str
    source: str


def read_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> TemplateText | None:
    """The folder's template; None if it has none.

    As transformers has it (`from_pretrained` and `get_chat_template` of tokenization_utils_base.py): files go before
    tokenizer_config.json, and of several templates the one named `tool_use` before `default`.

    Args:
        folder: a base's, or an adapter's.
        tokenizer_config: the content of its tokenizer_config.json.

    Raises:
        TemplateError: a file cannot be read, or there are templates of other names only.

    """
    files = [folder / CHAT_TEMPLATE, *sorted((folder / _FURTHER).glob("*.jinja"))]
    for path in files:
        require_content(path, TemplateError)
    named = {path.stem if path.parent.name == _FURTHER else "default": path for path in files if path.is_file()}
    if named:
        path = named[_preferred(named, str(folder))]
        return TemplateText(str(path), read_source(path))
    where, value = f"{folder / TOKENIZER_CONFIG}, chat_template", tokenizer_config.get("chat_template")
    if isinstance(value, list):
        texts = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = texts[_preferred(texts, where)]
    if value is not None and not isinstance(value, str):
        raise _refusal(where, f"a {type(value).__name__}")
    return None if value is None else TemplateText(where, value)


def _preferred(named: Mapping[Any, object], where: str) -> str:
    for name in _ORDER:
        if name in named:
            return name
    raise _refusal(where, f"templates named {', '.join(map(str, named)) or 'nothing'}")


def _refusal(where: str, found: str) -> TemplateError:
    return TemplateError(
        where,
        found=found,
        expected="one chat template, or one named `tool_use` or `default`",
        fix=f"Write the right one into {CHAT_TEMPLATE}.",
    )
