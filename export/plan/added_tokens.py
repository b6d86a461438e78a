"""Tokens that adapters add to the base's tokenizer, which is the whole bundle's: other stages may not read them."""

from __future__ import annotations

from collections.abc import Iterator

from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.tokenizer import read_json, special_token
from dualtune_edge.export.plan.prompts import PlannedStage, Plans
from dualtune_edge.toolkit.errors import AdapterError


def check_added_tokens(plans: Plans, checkpoint: Checkpoint) -> None:
    """Refuse a bundle in which a stage reads tokens that its adapter, or the base, was not trained with.

    Special tokens in a conversation are read as the text that they are, so these reach no stage but by its template.

    Raises:
        AdapterError: a token that is not special, or a stage whose prompt holds one.

    """
    added = checkpoint.added_tokens
    others = [stage for stage in plans.stages if not (stage.adapter and stage.adapter.knows_added_tokens)]
    if not added or not others:
        return
    special = {token.content for token in checkpoint.tokenizer.get_added_tokens_decoder().values() if token.special}
    plain = sorted(added.keys() - special)
    if plain:
        some = ", ".join(map(repr, plain[:3]))
        raise _refusal(checkpoint, f"tokens such as {some}, which {others[0].name} was not trained with")
    marks = _changed_marks(checkpoint)
    for stage in others:
        if mark := next((mark for mark in marks if mark in stage.plan.template), None):
            raise _refusal(checkpoint, f"another {mark} than the base's, which the template of {stage.name} writes")
        if read := set(_tokens(stage)) & set(added.values()):
            token = checkpoint.tokenizer.id_to_token(min(read))
            raise _refusal(checkpoint, f"the token {token!r}, which stands in the prompt of {stage.name}")


def _changed_marks(checkpoint: Checkpoint) -> list[str]:
    settings = read_json(checkpoint.folder / TOKENIZER_CONFIG)
    marks = {"bos_token": checkpoint.bos, "eos_token": checkpoint.eos}
    return [mark for mark, text in marks.items() if special_token(settings, mark) != text]


def _tokens(stage: PlannedStage) -> Iterator[int]:
    plan = stage.plan
    yield from plan.prefix
    for completion in plan.completions.values():
        yield from completion
    yield from plan.frame.tokens if plan.frame else ()


def _refusal(checkpoint: Checkpoint, found: str) -> AdapterError:
    return AdapterError(
        str(checkpoint.tokenizer_folder / "tokenizer.json"),
        found=found,
        expected="one tokenizer for all stages of a bundle, which their adapters were trained with",
        fix="Train the adapters of a bundle with one tokenizer, or export those with these tokens alone.",
    )
