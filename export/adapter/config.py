"""adapter_config.json through an allowlist: a field that could change the mathematics is known, or refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import NoneType
from typing import Any, Final

from peft import LoraConfig, TaskType

from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.bundle.manifest import Mode
from dualtune_edge.toolkit.errors import AdapterError

CONFIG: Final = "adapter_config.json"
# Where the adapter is: PEFT reads these and injects accordingly, so that shapes and scales follow.
_PLACES: Final = {
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "fan_in_fan_out",  # PEFT follows the layer's class: no linear layer of a decoder is stored so
}
# What says nothing about inference: where it came from, how it was trained and started.
_HISTORY: Final = {
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",  # EVA only chooses how A starts and, in rank_pattern, the ranks
    "inference_mode",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "qalora_group_size",  # used with use_qalora only
    "revision",
    "runtime_config",
    "task_type",
}
# Starts that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base's weights as well.
_STARTS: Final = (True, False, "gaussian", "eva", "orthogonal")
_REBASING: Final = ("pissa", "olora")  # starts that PEFT repeats when it loads, and so can merge
# What PEFT folds into the base exactly, so that the merged mode can take it. docs/adapter-matrix.md proves each.
_MERGEABLE: Final = {
    "use_dora",
    "modules_to_save",
    "bias",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "velora_config",
}
_EXTERNAL: Final = {"lora_bias"}  # the graph has slots for it; merged only where the module has a bias of its own
_TASKS: Final = (None, "CAUSAL_LM")
_NEEDED: Final = ("r", "lora_alpha")  # PEFT writes them always, and takes 8 where they are left out
# Of fields that PEFT takes otherwise, or fails on far from here, where they are of another type ("false" as true).
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "r": (int,),
    "lora_alpha": (int, float),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
    "use_rslora": (bool, NoneType),
    "use_dora": (bool, NoneType),
    "lora_bias": (bool, NoneType),
    "fan_in_fan_out": (bool, NoneType),
    "modules_to_save": (list, NoneType),
}


def read_config(folder: Path, mode: Mode) -> LoraConfig:
    """Read the config of an adapter.

    Raises:
        AdapterError: no such file, not LoRA, or a field asks for what `mode` cannot do exactly.

    """
    values = read_object(folder / CONFIG)
    for field in _NEEDED:
        if field not in values:
            raise AdapterError(
                f"{folder / CONFIG}, {field}", found="nothing", expected="a number", fix="Save the adapter with PEFT."
            )
    for field, value in values.items():
        _check_type(folder / CONFIG, field, value)
        _check(folder / CONFIG, field, value, mode)
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    kept = {name: value for name, value in values.items() if name in known and name not in _HISTORY}
    kept["base_model_name_or_path"] = values.get("base_model_name_or_path")
    try:
        return LoraConfig(task_type=TaskType.CAUSAL_LM, **kept)
    except (TypeError, ValueError) as error:
        raise AdapterError(
            str(folder / CONFIG), found=str(error), expected="a LoRA config", fix="Save the adapter again with PEFT."
        ) from None


def mathematics(config: LoraConfig) -> dict[str, Any]:
    """What of a config changes results besides ranks and scales."""
    fields = config.to_dict()
    start = {"init_lora_weights": config.init_lora_weights} if rebases(config) else {}
    return start | {name: fields[name] for name in sorted(_MERGEABLE | _EXTERNAL) if fields[name] not in _neutral(name)}


def rebases(config: LoraConfig) -> bool:
    """Whether loading the adapter changes the base's weights: what it adds is then not all that it does."""
    return config.init_lora_weights in _REBASING


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of an adapter's folder.

    Raises:
        AdapterError: no such file, or it holds something else.

    """
    try:
        values = strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AdapterError(
            str(path), found="no such file", expected="a folder that PEFT saved", fix="Check the path of the adapter."
        ) from None
    except (OSError, strict_json.JsonError) as error:
        raise AdapterError(
            str(path), found=str(error), expected="a JSON object", fix="Copy or save the adapter again."
        ) from None
    if not isinstance(values, dict):
        raise AdapterError(str(path), found="no JSON object", expected="one", fix="Copy or save the adapter again.")
    return values


def _check(path: Path, field: str, value: Any, mode: Mode) -> None:
    """Refuse one field, unless it is one that we follow, says nothing, or stands at its neutral value."""
    if field == "peft_type":
        allowed, expected = value == "LORA", "'LORA'"
    elif field == "task_type":
        allowed, expected = value in _TASKS, "'CAUSAL_LM'"
    elif field == "init_lora_weights":
        starts = (*_STARTS, *_REBASING) if mode == "merged" else _STARTS
        allowed, expected = any(value is each or value == each for each in starts), f"one of {starts}"
    elif field in _PLACES or field in _HISTORY or field in _EXTERNAL:
        return
    else:
        neutral = _neutral(field)
        allowed = value in neutral or (mode == "merged" and field in _MERGEABLE)
        expected = " or ".join(map(repr, neutral))
    if not allowed:
        raise AdapterError(f"{path}, {field}", found=repr(value), expected=expected, fix=_fix(field, value, mode))


def _check_type(path: Path, field: str, value: Any) -> None:
    types = _TYPES.get(field)
    if types and type(value) not in types:
        expected = " or ".join(each.__name__ for each in types if each is not NoneType)
        raise AdapterError(
            f"{path}, {field}", found=repr(value), expected=expected, fix="Correct it, or save the adapter with PEFT."
        )


def _neutral(field: str) -> tuple[Any, ...]:
    """Values that change nothing: PEFT's default; of a field that this PEFT does not know, null and false."""
    for known in dataclasses.fields(LoraConfig):
        if known.name == field:
            if known.default_factory is not dataclasses.MISSING:
                return (known.default_factory(), None)
            return (known.default, None) if known.default is not None else (None,)
    return (None, False)


def _fix(field: str, value: Any, mode: Mode) -> str:
    if mode == "external" and (field in _MERGEABLE or value in _REBASING):
        return "Export this adapter with `mode: merged`, which folds it into the base."
    return f"Train an adapter without {field}; this one cannot be exported exactly."
