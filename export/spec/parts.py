"""The parts of a `dualtune.yaml`: adapters, toolsets, the comparison, licences.

An adapter is a path, or a path with a mode if it differs from the spec's. Paths are relative to the file that names
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from dualtune_edge.export.spec.recipes import Recipe
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.manifest import Border
from dualtune_edge.toolkit.bundle.parity import ParityLimits
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.frozen import Frozen


def _resolve(path: Path, info: ValidationInfo) -> Path:
    return (info.context or Path()) / path


def _resolve_profile(profile: str, info: ValidationInfo) -> str:
    return str(_resolve(Path(profile), info)) if profile.endswith(".toml") else profile


def _printable(name: str) -> str:
    if not name.isprintable():
        raise PydanticCustomError("name", "printable characters")
    return name


def _arguments_form(value: object) -> str | None:
    if isinstance(value, str | Path):
        return "folder"
    return "mapping" if isinstance(value, dict) else None


def _quantization_form(value: object) -> str | None:
    if isinstance(value, dict | Quantization):
        return "mapping"
    return "recipe" if isinstance(value, str) else None


LocalPath: TypeAlias = Annotated[Path, AfterValidator(_resolve)]
ProfileName: TypeAlias = Annotated[str, AfterValidator(_resolve_profile)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS), AfterValidator(_printable)]


class AdapterSpec(Frozen):
    """The folder of one PEFT adapter. `mode` None: the spec's."""

    path: LocalPath
    mode: Mode | None = None

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        if isinstance(value, str | Path):
            return {"path": value}
        if isinstance(value, dict | AdapterSpec):
            return value
        raise PydanticCustomError("adapter", "an adapter's folder, or a mapping of `path` and `mode`")


ArgumentAdapters: TypeAlias = Annotated[
    Annotated[LocalPath, Tag("folder")] | Annotated[dict[str, AdapterSpec], Tag("mapping")],
    Discriminator(
        _arguments_form,
        custom_error_type="arguments_form",
        custom_error_message="a folder of adapter folders, or a mapping of tool to adapter",
    ),
]


BRANCHES: Final = ("folder", "mapping", "recipe")
"""Tags of unions, which no document has."""
QuantizationSpec: TypeAlias = Annotated[
    Annotated[Quantization, Tag("mapping")] | Annotated[Recipe, Tag("recipe")],
    Discriminator(
        _quantization_form,
        custom_error_type="quantization_form",
        custom_error_message="a recipe's name, `auto`, or a mapping of `bits`, `block_size` and so on",
    ),
]


Copying: TypeAlias = Border | Literal["free"]  # free: not copied, whatever the data shows


class TemplatesSpec(Frozen):
    """Chat templates for the stages of one toolset whose adapters bring none."""

    selection: LocalPath | None = None
    arguments: LocalPath | None = None


class ToolsetSpec(Frozen):
    """One toolset: its tool list and its adapters. Stages without an adapter are left to the base model.

    `copied`: by tool, the properties whose texts are pieces of the conversation, such as `path` or `edits[].oldText`,
    and where a piece ends. `trajectories`: the conversations that its adapters learnt from; they show others.
    """

    name: Name
    description: str = ""
    tools: LocalPath
    selection: AdapterSpec | None = None
    arguments: ArgumentAdapters | None = None
    templates: TemplatesSpec = TemplatesSpec()
    copied: dict[str, dict[str, Copying]] = Field(default_factory=dict)
    trajectories: LocalPath | None = None


class ParitySpec(Frozen):
    """How much is compared with PEFT in float32, and how far it may differ.

    `prompts` are made up for each stage; arguments are compared up to `argument_tokens`. `layers`: how many of the
    base's first layers are compared, or more if they do not hold each kind of layer and something of every adapter;
    without it all, but of a large base only so many. `calibration` holds conversations of the user's own.
    """

    prompts: int = Field(default=2, ge=1, le=64, strict=True)
    argument_tokens: int = Field(default=32, ge=1, le=limits.ARGUMENT_TOKENS, strict=True)
    before_quantization: bool = True
    layers: int | None = Field(default=None, ge=1, strict=True)
    calibration: LocalPath | None = None
    limits: ParityLimits = ParityLimits()


class LicencesSpec(Frozen):
    """Texts of the licences of base and adapters whose own folders say nothing of theirs.

    A text names its licence by a line with `SPDX-License-Identifier: …`.
    """

    base: LocalPath | None = None
    adapters: LocalPath | None = None
