"""The phases of an export, declared once: their names, in the order in which a model goes through them."""

from __future__ import annotations

from enum import StrEnum


class PhaseName(StrEnum):
    """What a reader sees while an export runs. `READ`, `PROMPTS` and `MANIFEST` run once, the others for each model.

    A phase without work is left out: no merged adapters, no comparison, a model that shares its graph.
    """

    READ = "read and check"
    PROMPTS = "plan prompts"
    KV_SCALES = "measure keys and values"
    MOMENTS = "measure inputs"
    BASE = "build the base graph"
    SLOTS = "add LoRA slots"
    ADAPTERS = "write adapters"
    MERGED = "merge adapters"
    TRIAL = "try out"
    COMPARISON = "compare with PEFT"
    STATIC = "compile for HTP"
    STATES = "prefix states"
    MANIFEST = "write manifest"
