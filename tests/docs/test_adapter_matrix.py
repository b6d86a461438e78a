"""Every cell of docs/adapter-matrix.md is measured: exact or refused by name, none in between."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PEFT's, of what is measured
SCRIPT = Path(__file__).parents[2] / "docs" / "adapter_matrix.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adapter_matrix", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["adapter_matrix"] = module  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


matrix: Any = load()
ROW = re.compile(r"\| (?P<name>.+) \| (?P<external>.+) \| (?P<merged>.+) \|")
ROWS = [match for line in matrix.PAGE.read_text(encoding="utf-8").splitlines() if (match := ROW.fullmatch(line))]
CELLS = {row["name"]: {"external": row["external"], "merged": row["merged"]} for row in ROWS}


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with matrix.bench() as made:
        yield made


@pytest.mark.parametrize("name", matrix.CONFIGS)
def test_the_cell_is_what_is_measured(name: str, bench: Any) -> None:
    found = bench.outcomes(name)
    assert found == CELLS.get(name), "run `make docs`"
    for cell in found.values():
        assert cell == matrix.EXACT or cell.startswith("refused: ")


def test_the_page_is_made_of_these_cells_and_no_other() -> None:
    assert matrix.page(CELLS) == matrix.PAGE.read_text(encoding="utf-8"), "run `make docs`"
    assert list(CELLS) == list(matrix.CONFIGS)
    assert len(CELLS) >= 40


def test_every_field_of_pefts_config_stands_in_the_page_or_says_nothing() -> None:
    """A field that a new PEFT brings fails here until someone has looked at it."""
    from peft import LoraConfig

    tried = {field for fields in matrix.CONFIGS.values() for field in fields}
    nothing = {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "inference_mode",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
    assert {field.name for field in dataclasses.fields(LoraConfig)} - tried == nothing
