import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan

PAGE = Path(__file__).parents[2] / "docs" / "bundle-format.md"


def fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in models(field.annotation):
            yield from fields(inner)


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)]


def test_the_page_names_every_field() -> None:
    names = {
        word
        for code in re.findall(r"`([^`\n]+)`", PAGE.read_text(encoding="utf-8"))
        for word in re.findall(r"\w+", code)
    }
    assert {*fields(Manifest), *fields(PromptPlan), *fields(ParityReport)} - names == set()
