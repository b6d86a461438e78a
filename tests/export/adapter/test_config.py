"""Expressions in adapter_config.json: PEFT matches them by `re`, which can take hours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.export.adapter.config import CONFIG, read_config
from dualtune_edge.toolkit.errors import AdapterError

ENDLESS = ("(a+)+$", "(.+)+x", "(.|.)*x", "(?:.*.*)*x", ".*" * 8 + "x", r"(\w+\.?)+x", r"(.*)\1x", "(?=(.+)+x).*")
WRITTEN = (
    "all-linear",
    r".*\.(q_proj|v_proj)$",
    r"model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj",
    r"^(?!.*visual).*(?:q_proj|k_proj)",
    r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:mlp)\.(?:up))",
)


def folder(path: Path, **fields: Any) -> Path:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **fields}
    (path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("source", ENDLESS)
@pytest.mark.parametrize(
    "field", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "layers_pattern", "modules_to_save"]
)
def test_an_expression_that_matches_for_hours_is_refused_by_its_field(tmp_path: Path, field: str, source: str) -> None:
    value = {"rank_pattern": {source: 8}, "alpha_pattern": {source: 8}, "modules_to_save": [source]}.get(field, source)
    with pytest.raises(AdapterError, match=f"{CONFIG}, {field}: found '") as refusal:
        read_config(folder(tmp_path, **{field: value}), "merged")
    assert refusal.value.expected == "an expression that matches in bounded time"


@pytest.mark.parametrize("source", WRITTEN)
def test_what_trainers_write_is_read(tmp_path: Path, source: str) -> None:
    assert read_config(folder(tmp_path, target_modules=source), "external").lora.target_modules == source


def test_a_list_of_targets_is_names(tmp_path: Path) -> None:
    assert read_config(folder(tmp_path, target_modules=["(a+)+$"]), "external").lora.target_modules == {"(a+)+$"}
