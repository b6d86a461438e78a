"""Names for quantizations, and what a profile leaves to them."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint

from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.sizes.files import base_shape, graph_bytes
from dualtune_edge.export.spec import recipes
from dualtune_edge.export.spec.recipes import RECIPES, Recipe, candidates, name_of
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import SpecError


def test_every_name_is_a_recipe_or_auto() -> None:
    assert get_args(Recipe) == (recipes.AUTO, *RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_known_by_its_name_at_any_accuracy_level(name: Recipe) -> None:
    (found,) = candidates(name, Quantization(accuracy_level=1, block_size=256))
    assert found == Quantization.model_validate(RECIPES[name].model_dump() | {"accuracy_level": 1})
    assert name_of(found) == name


def test_another_quantization_is_told_by_its_parts() -> None:
    assert name_of(Quantization(bits=8)) == "bits 8, block_size 32, accuracy_level 4, algorithm default"


def test_auto_is_all_of_them_in_order() -> None:
    assert candidates("auto", Quantization()) == tuple(RECIPES.values())


def test_they_grow(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape(256, 512, 8, 4, 2, 288, 512))
    shape = dataclasses.replace(base_shape(read_checkpoint(tmp_path)), texts=0)
    sizes = [graph_bytes(shape, recipe) for recipe in RECIPES.values()]
    assert sizes == sorted(sizes)
    assert sizes[0] == sizes[1]  # of gptq-128 and int4-128
    assert len(set(sizes)) == len(sizes) - 1


def test_what_is_left_out_is_the_defaults() -> None:
    given, defaults = Quantization(lm_head_bits=8, algorithm="rtn"), Quantization(block_size=64, accuracy_level=1)
    wanted = Quantization(algorithm="rtn", block_size=64, accuracy_level=1, lm_head_bits=8)
    assert candidates(given, defaults) == (wanted,)


def test_what_does_not_go_together_with_the_defaults_is_refused() -> None:
    given = Quantization.model_validate({"lm_head_bits": 8, "algorithm": "rtn"})
    with pytest.raises(SpecError, match=r"quantization: found keys that do not go together; expected `bits: 4`"):
        candidates(given, Quantization(bits=8))
