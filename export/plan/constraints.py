"""Compiles every tool's schema to a constraint, as the device does; a schema that cannot be one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from llguidance import LLTokenizer

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.runtime.grammar.grammar import compile_grammar, impossible_properties, open_tokenizer
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

_DIGITS: Final = 15  # decimal digits that every double keeps: llguidance reads and writes numbers as doubles


def constraint_tokenizer(checkpoint: Checkpoint) -> LLTokenizer:
    """The checkpoint's tokenizer, as the grammars of its stages read it.

    Raises:
        CheckpointError: llguidance cannot read the tokenizer.

    """
    text = (checkpoint.tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8")
    return open_tokenizer(text, vocab_size=checkpoint.vocab_size, end_of_turn=checkpoint.end_of_turn)


def check_constraints(plans: Plans, tokenizer: LLTokenizer) -> tuple[str, ...]:
    """Compile the grammar of every arguments stage.

    Returns:
        A warning for each part of a schema that only the check of the finished arguments holds, and for each optional
        property that no value fits.

    Raises:
        ToolsError: a schema cannot be a constraint.

    """
    warnings = []
    for planned in plans.toolsets:
        tools = {tool.name: tool for tool in planned.toolset.tools}
        for name, stage in planned.arguments.items():
            if stage.plan.frame is not None:
                where = f"schema of {name!r} of {planned.toolset.name!r}"
                parts = _tool_warnings(tools[name], stage.plan.frame, tokenizer)
                warnings += [f"{where}: {part}" for part in parts]
    return tuple(warnings)


def _tool_warnings(tool: Tool, frame: Frame, tokenizer: LLTokenizer) -> Iterator[str]:
    refuse_long_numbers(tool)
    for what in compile_grammar(tool, frame, tokenizer).unenforced:
        yield f"{what}; checked only after the arguments are written"
    for name in impossible_properties(tool, frame, tokenizer):
        yield f"no value fits {name!r}, which a call never holds"
    for what in tool.reading.constraint.ignored:
        yield f"{what}; an annotation, which nobody checks"


def refuse_long_numbers(tool: Tool) -> None:
    """Raise `ToolsError` for a number in `enum` or `const` that would be written rounded, and so refused at calls."""
    for number in _listed(tool.reading.schema):
        digits = len(Decimal(repr(number)).normalize().as_tuple().digits)
        if digits > _DIGITS:
            raise ToolsError(
                f"schema of {tool.name!r}",
                found=f"{number!r} in `enum` or `const`: too many digits",
                expected=f"numbers of at most {_DIGITS} digits",
                fix="Make it a text in the tool's schema.",
            )


def _listed(schema: Any) -> Iterator[int | float]:
    """Numbers in any `enum` or `const`."""
    stack = [(schema, False)]
    while stack:
        value, listed = stack.pop()
        if isinstance(value, dict):
            stack += [(member, listed or key in {"enum", "const"}) for key, member in value.items()]
        elif isinstance(value, list):
            stack += [(item, listed) for item in value]
        elif listed and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield value
