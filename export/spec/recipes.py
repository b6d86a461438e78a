"""Named recipes for the storage of weights, from the cheapest to the most exact: docs/performance.md has their cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.validation import validate

Recipe: TypeAlias = Literal[
    "auto",
    "gptq-128",
    "int4-128",
    "int4-64",
    "int4-32",
    "k-quant-32",
    "k-quant-32-head8",
    "k-quant-32-mixed",
    "int8-32",
]
AUTO: Final = "auto"
StatesType: TypeAlias = Literal["float32", "float16", "auto"]  # of prefix states
TemplateChoice: TypeAlias = Literal["builtin"]  # in place of the base's own chat template

# In the order in which `auto` tries them: bytes grow, and with them the time of a token. `gptq` rounds by what the
# model reads, the others each weight for itself. `default` and `rtn` both round to nearest; `default` spends its levels
# better (a KL divergence of 0.08 against 0.35 nats on the kit, blocks of 128). In 8 bits the embedding is not
# quantized.
RECIPES: Final[Mapping[Recipe, Quantization]] = {
    "gptq-128": Quantization(block_size=128, algorithm="gptq"),
    "int4-128": Quantization(block_size=128, algorithm="default"),
    "int4-64": Quantization(block_size=64, algorithm="default"),
    "int4-32": Quantization(block_size=32, algorithm="default"),
    "k-quant-32": Quantization(block_size=32, algorithm="k_quant"),
    "k-quant-32-head8": Quantization(block_size=32, algorithm="k_quant", lm_head_bits=8),
    "k-quant-32-mixed": Quantization(block_size=32, algorithm="k_quant", lm_head_bits=8, sensitive_bits=8),
    "int8-32": Quantization(bits=8, block_size=32, algorithm="rtn"),
}


def candidates(asked: Quantization | Recipe, defaults: Quantization) -> tuple[Quantization, ...]:
    """The recipes to try, in order: all of them for `auto`, else one.

    Args:
        asked: the spec's choice. A named recipe has no accuracy level.
        defaults: the profile's, for what is left out.

    Raises:
        SpecError: the spec's choice contradicts the profile's defaults.

    """
    if isinstance(asked, Quantization):
        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        return (validate(Quantization, dict(defaults) | given, where="quantization", error=SpecError),)
    chosen = tuple(RECIPES.values()) if asked == AUTO else (RECIPES[asked],)
    return tuple(recipe.model_copy(update={"accuracy_level": defaults.accuracy_level}) for recipe in chosen)


def name_of(quantization: Quantization) -> str:
    """The name of the recipe, whatever its accuracy level; of any other quantization, its fields."""
    for name, recipe in RECIPES.items():
        if recipe.model_copy(update={"accuracy_level": quantization.accuracy_level}) == quantization:
            return name
    return ", ".join(f"{key} {value}" for key, value in quantization.model_dump().items())
