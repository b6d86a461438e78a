"""Every tool's schema is made a constraint at the desk, as the device will: what cannot be one is refused here."""

from __future__ import annotations

from dualtune_edge.export.checkpoint import Checkpoint
from dualtune_edge.export.plan import Plans
from dualtune_edge.runtime.grammar import compile_grammar, open_tokenizer


def check_constraints(plans: Plans, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Compile the grammar of every arguments stage.

    Returns:
        A warning for each part of a schema that only the check of the finished arguments holds.

    Raises:
        ToolsError: a schema cannot be a constraint.
        CheckpointError: llguidance cannot read the tokenizer.

    """
    text = (checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = open_tokenizer(text, vocab_size=checkpoint.vocab_size, end_of_turn=checkpoint.end_of_turn)
    warnings = []
    for planned in plans.toolsets:
        tools = {tool.name: tool for tool in planned.toolset.tools}
        for name, stage in planned.arguments.items():
            if stage.plan.frame is not None:
                left = compile_grammar(tools[name], stage.plan.frame, tokenizer).unenforced
                where = f"schema of {name!r} of {planned.toolset.name!r}"
                warnings += [f"{where}: {what}; checked only after the arguments are written" for what in left]
    return tuple(warnings)
