"""adapter_config.json through an allowlist: a field that could change the mathematics is known, or refused by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final

from peft import LoraConfig, TaskType

from dualtune_edge.export.base.content import require_content
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import AdapterError
from dualtune_edge.toolkit.expressions import ExpressionError, refuse_backtracking

CONFIG: Final = "adapter_config.json"
# Where the adapter is, and how strong: PEFT reads these as it injects, so that shapes and scales follow.
_TARGETING: Final = {
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
    "ensure_weight_tying",  # read_adapter refuses it where it has an effect
}
# What says nothing about inference: where the adapter came from, how it was trained and started.
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
# Starts that leave the base's weights alone; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change them as well.
_STARTS: Final = (True, False, "gaussian", "eva", "orthogonal")
_RESIDUAL_STARTS: Final = ("pissa", "olora")  # PEFT repeats them when it loads, and so can merge
# What PEFT folds into the base exactly, so that the merged mode can take it: docs/adapter-matrix.md measures it.
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
# The graph has slots for `lora_bias`; merged only where the module has a bias. The engine switches the
# adapter on at `alora_invocation_tokens`; merged, it would be active from the first token on.
_EXTERNAL: Final = {"lora_bias", "alora_invocation_tokens"}
_TASKS: Final = (None, "CAUSAL_LM")
_NEEDED: Final = ("r", "lora_alpha")  # PEFT writes them always, and takes 8 where they are left out
# PEFT takes values of other types in another sense ("false" as true), or fails on them far from here.
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "r": (int,),
    "lora_alpha": (int, float),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
    "use_rslora": (bool, NoneType),
    "use_dora": (bool, NoneType),
    "lora_bias": (bool, NoneType),
    "fan_in_fan_out": (bool, NoneType),
    "ensure_weight_tying": (bool, NoneType),
    "modules_to_save": (list, NoneType),
    "alora_invocation_tokens": (list, NoneType),
}
# PEFT matches these with the names of the base's modules, by `re`, which backtracks. A list of targets is plain names.
_EXPRESSIONS: Final = ("target_modules", "exclude_modules")
_LISTED_EXPRESSIONS: Final = ("rank_pattern", "alpha_pattern", "layers_pattern", "modules_to_save")
_IN_A_ROW: Final = 5  # repetitions: a second for the names of 300 modules; trainers write four
_FIELDS: Final = {field.name: field for field in dataclasses.fields(LoraConfig)}


@dataclass(frozen=True)
class AdapterConfig:
    """A config as PEFT has it. `warnings` say which fields this PEFT does not know and passes over."""

    lora: LoraConfig
    warnings: tuple[str, ...]


def read_config(folder: Path, mode: Mode) -> AdapterConfig:
    """Read the config of an adapter.

    Raises:
        AdapterError: no such file, not LoRA, or a field asks for what `mode` cannot do exactly.

    """
    path = folder / CONFIG
    values = read_object(path)
    _check_kind(path, values)
    for field in _NEEDED:
        if field not in values:
            raise AdapterError(
                f"{path}, {field}", found="nothing", expected="a number", fix="Save the adapter with PEFT."
            )
    unknown = []
    for field, value in values.items():
        if field in _FIELDS:
            _check_type(path, field, value)
            _check_expressions(path, field, value)
            _check(path, field, value, mode)
        elif _check_unknown(path, field, value):
            unknown.append(f"{path}: {field} is {value!r}, and PEFT here does not know the field: it is passed over")
    kept = {name: value for name, value in values.items() if name in _FIELDS and not _is_passed_over(name, value)}
    kept["base_model_name_or_path"] = values.get("base_model_name_or_path")
    try:
        return AdapterConfig(LoraConfig(task_type=TaskType.CAUSAL_LM, **kept), tuple(unknown))
    except (TypeError, ValueError) as error:
        raise AdapterError(
            str(path), found=str(error), expected="a LoRA config", fix="Save the adapter again with PEFT."
        ) from None


def mathematics(config: LoraConfig) -> dict[str, Any]:
    """What of a config changes results besides ranks and scales."""
    fields = config.to_dict()
    start = {"init_lora_weights": config.init_lora_weights} if has_residual_base(config) else {}
    return start | {
        name: fields[name] for name in sorted(_MERGEABLE | _EXTERNAL) if not _is_neutral(name, fields[name])
    }


def has_residual_base(config: LoraConfig) -> bool:
    """Whether loading the adapter changes the base's weights: what it adds is then not all that it does."""
    return config.init_lora_weights in _RESIDUAL_STARTS


def changes_modules(config: LoraConfig) -> bool:
    """Whether loading the adapter replaces modules or weights of the base, and so needs them."""
    return has_residual_base(config) or bool(config.modules_to_save)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of an adapter's folder.

    Raises:
        AdapterError: no such file, or it holds something else.

    """
    require_content(path, AdapterError)
    try:
        values = strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        inner = sorted(folder.name for folder in path.parent.glob("*/") if (folder / path.name).is_file())
        fix = f"Name the folder of one adapter: {', '.join(inner[:5])}." if inner else "Check the path of the adapter."
        raise AdapterError(str(path), found="no such file", expected="a folder that PEFT saved", fix=fix) from None
    except (OSError, strict_json.JsonError) as error:
        raise AdapterError(
            str(path), found=str(error), expected="a JSON object", fix="Copy or save the adapter again."
        ) from None
    if not isinstance(values, dict):
        raise AdapterError(str(path), found="no JSON object", expected="one", fix="Copy or save the adapter again.")
    return values


def _check_kind(path: Path, values: dict[str, Any]) -> None:
    """Refuse another kind of adapter first: its fields are not LoRA's."""
    kind = values.get("peft_type")
    if kind != "LORA":
        raise AdapterError(
            f"{path}, peft_type",
            found=repr(kind),
            expected="'LORA', the one kind of adapter that is exported",
            fix=_fix_of_kind(kind),
        )
    if values.get("task_type") not in _TASKS:
        raise AdapterError(
            f"{path}, task_type",
            found=repr(values.get("task_type")),
            expected="'CAUSAL_LM'",
            fix="Train an adapter for generation; this one is for another task.",
        )


def _fix_of_kind(kind: object) -> str:
    if kind is None:
        return "Save the adapter with PEFT, whose configs say peft_type; other trainers' are converted to it first."
    if "PROMPT" in str(kind) or "TUNING" in str(kind):  # these change prompts, and no weight of the base
        return "Train a LoRA adapter."
    return "Train a LoRA adapter; or merge this one with PEFT (merge_and_unload), and export the merged model."


def _check(path: Path, field: str, value: Any, mode: Mode) -> None:
    """Refuse a field of PEFT's, unless it is followed, says nothing, or stands at its neutral value."""
    if field == "init_lora_weights":
        starts = (*_STARTS, *_RESIDUAL_STARTS) if mode == "merged" else _STARTS
        allowed, expected = any(value is start or value == start for start in starts), f"one of {starts}"
    elif field in _TARGETING or field in _HISTORY or field in _EXTERNAL:
        return
    else:
        allowed = _is_neutral(field, value) or (mode == "merged" and field in _MERGEABLE)
        expected = repr(_default(field))
    if not allowed:
        raise AdapterError(f"{path}, {field}", found=repr(value), expected=expected, fix=_fix(field, value, mode))


def _check_unknown(path: Path, field: str, value: Any) -> bool:
    """Whether a field that this PEFT does not know deserves a warning.

    PEFT passes over it. Empty, it asks for nothing. A number alone is a setting of something that another field
    switches on. Anything else may be that switch.
    """
    if not value:
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return True
    raise AdapterError(
        f"{path}, {field}",
        found=f"{value!r}, in a field that PEFT here does not know",
        expected="only fields whose effect is known",
        fix=f"Where {field} stands at the default of the PEFT that wrote it, remove it from {CONFIG}.",
    )


def _check_type(path: Path, field: str, value: Any) -> None:
    types = _TYPES.get(field)
    if types and type(value) not in types:
        expected = " or ".join(kind.__name__ for kind in types if kind is not NoneType)
        raise AdapterError(
            f"{path}, {field}", found=repr(value), expected=expected, fix="Correct it, or save the adapter with PEFT."
        )


def _check_expressions(path: Path, field: str, value: Any) -> None:
    """Refuse an expression that could match for hours."""
    several = isinstance(value, (list, dict)) and field in _LISTED_EXPRESSIONS
    sources = value if several else [value] if field in (*_EXPRESSIONS, *_LISTED_EXPRESSIONS) else []
    for source in sources:
        if not isinstance(source, str):
            continue
        try:
            refuse_backtracking(f"(?:{source})$", in_a_row=_IN_A_ROW)
        except ExpressionError as error:
            raise AdapterError(
                f"{path}, {field}",
                found=f"{source[:80]!r}: {error}",
                expected="an expression that matches in bounded time",
                fix="Write the names of the modules as a list.",
            ) from None


def _default(field: str) -> Any:
    known = _FIELDS[field]
    return known.default if known.default_factory is dataclasses.MISSING else known.default_factory()


def _is_neutral(field: str, value: Any) -> bool:
    """Whether a value changes nothing: PEFT's default, null, or an empty list or mapping."""
    return value is None or value in ([], {}) or value == _default(field)


def _is_passed_over(field: str, value: Any) -> bool:
    return field in _HISTORY or (field not in _TARGETING and _is_neutral(field, value))


def _fix(field: str, value: Any, mode: Mode) -> str:
    if mode == "external" and (field in _MERGEABLE or value in _RESIDUAL_STARTS):
        return "Export this adapter with `mode: merged`, which folds it into the base."
    return f"Train an adapter without {field}; this one cannot be exported exactly."
