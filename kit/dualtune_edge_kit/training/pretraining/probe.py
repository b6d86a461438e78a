# ruff: noqa: S311 - conversations drawn by seed, not secrets
"""What a base knows by itself: calls of made-up conversations that no course draws, by kind, by teacher forcing."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeAlias, get_args

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge_kit.training.data import kin, toolsets
from dualtune_edge_kit.training.data.typed import conversations as typed
from dualtune_edge_kit.training.pretraining import base, kindred, second, texts
from dualtune_edge_kit.training.pretraining.second import Kind, Layout, Lengths
from dualtune_edge_kit.training.pretraining.texts import Document, Templates
from dualtune_edge_kit.training.pretraining.tokenizer import END_OF_TURN, MARKS

Asked: TypeAlias = Literal["call", "second call", "no tool"]

COUNT: Final = 60  # conversations of a kind
_ALL: Final = 14  # tools; no server has more
_TOOLS: Final = (5, 6, 8, 10)
_POINTING: Final[tuple[Layout, ...]] = ("shared", "arguments")
_CHOOSING: Final[tuple[Layout, ...]] = ("shared", "selection")


@dataclass(frozen=True)
class Share:
    """Counts of the last calls of a kind's conversations."""

    calls: int
    tools: int  # whose names are right
    whole: int  # all of whose tokens are right


def probe(model: Qwen2ForCausalLM, tokenizer: Tokenizer) -> dict[str, Share]:
    """The shares of every kind."""
    templates = texts.read_templates()
    return {name: _share(model, tokenizer, list(documents)) for name, documents in _kinds(templates)}


def table(shares: dict[str, Share]) -> str:
    """A kind a row, in percent."""
    rows = (
        f"| {kind} | {100 * share.tools / share.calls:.0f} | {100 * share.whole / share.calls:.0f} |\n"
        for kind, share in shares.items()
    )
    return "| conversations, layout | tool % | whole call % |\n|---|---|---|\n" + "".join(rows)


def _kinds(templates: Templates) -> Iterator[tuple[str, Iterator[Document]]]:
    for layout in get_args(Layout):
        yield f"plain, {layout}", _drawn("plain", layout, (1,), templates)
    for lines in (1, 2, 4):
        for layout in _POINTING:
            yield f"pointing at {lines}, {layout}", _drawn("pointing", layout, (lines,), templates)
    for layout in _CHOOSING:
        yield f"second, {layout}", _drawn("second", layout, (1,), templates)
        yield f"no tool, {layout}", _drawn("no tool", layout, (1,), templates)

    for layout in _CHOOSING:
        for count in (2, 4, _ALL):
            yield f"kin, one of {count}, {layout}", _of_kin("call", layout, count, templates)
        yield f"kin, second call, {layout}", _of_kin("second call", layout, _ALL, templates)
        yield f"kin, no tool, {layout}", _of_kin("no tool", layout, _ALL, templates)
    yield "kin, arguments", _of_kin("call", "arguments", _ALL, templates)
    yield "kin, second call, arguments", _of_kin("second call", "arguments", _ALL, templates)


def _drawn(kind: Kind, layout: Layout, lines: tuple[int, ...], templates: Templates) -> Iterator[Document]:
    """Conversations of one kind, only whose last call is asked for."""
    rng = Random(f"probe {kind} {layout} {lines}")
    lengths = Lengths(lines, _TOOLS, (1,))
    count = 0
    while count < COUNT:
        made = second.tools(rng, 1 if layout == "arguments" else rng.choice(_TOOLS))
        messages = second.conversation(rng, made, kind, lengths, "development")
        calls = sum(bool(message.tool_calls) for message in messages)
        if kind == "no tool":
            fits = not messages[-1].tool_calls
        else:
            last = max(index for index, message in enumerate(messages) if message.tool_calls)
            messages = messages[: last + 1]
            fits = calls >= (1 if kind == "plain" else 2)
        if fits:
            document = second.rendered(messages, tuple(tool.tool for tool in made), layout, templates)
            yield Document.of_last_turn(document.context + document.text)
            count += 1


def _of_kin(asked: Asked, layout: Layout, count: int, templates: Templates) -> Iterator[Document]:
    """Conversations with servers such as the kit's two, in wordings that no course draws."""
    rng = Random(f"probe kin {asked} {layout} {count}")
    for _ in range(COUNT):
        toolset = rng.choice(toolsets.NAMES)
        tool = rng.choice([tool.name for tool in toolsets.load(toolset).toolset.tools if tool.takes_arguments])
        server = kin.make(rng, toolset)
        messages = server.renamed(_until(rng, toolset, tool, asked))
        offered = kindred.offered(rng, server, messages, count)
        document = second.rendered(messages, offered, layout, templates)
        yield Document.of_last_turn(document.context + document.text)


def _until(rng: Random, toolset: str, tool: str, asked: Asked) -> tuple[Message, ...]:
    """A conversation up to what is asked for: its first call, its second one, or the answer behind its call."""
    if asked == "second call":
        messages = kindred.of_toolset(toolset, lambda: typed.joined(rng, tool, "development"))
        calls = [index for index, message in enumerate(messages) if message.tool_calls]
        return messages[: calls[1] + 1]
    messages = typed.single(rng, tool, "development")
    return messages if asked == "no tool" else messages[:2]


def _share(model: Qwen2ForCausalLM, tokenizer: Tokenizer, documents: list[Document]) -> Share:
    (end,), (mark,) = tokenizer.encode(END_OF_TURN).ids, tokenizer.encode(MARKS[0]).ids
    opening = tokenizer.encode("<|im_start|>assistant\n").ids
    name = tokenizer.encode('{"name": "').ids
    tools = whole = 0
    for document in documents:
        context, text = tokenizer.encode(document.context).ids, tokenizer.encode(document.text).ids
        ids = (context + text)[-base.CONTEXT :]
        mask = ([False] * len(context) + base.learnt(text, end, opening, mark))[-base.CONTEXT :]
        with torch.inference_mode():
            best = model(input_ids=torch.tensor([ids])).logits[0].argmax(-1).tolist()
        start = mask.index(True)
        right = [best[index - 1] == ids[index] for index in range(start, len(ids)) if mask[index]]
        first = 1 + len(name)
        until = first + len(tokenizer.encode(_name(document.text)).ids) + 1  # the quote ends a name
        tools += all(right[:until])
        whole += all(right)
    return Share(len(documents), tools, whole)


def _name(text: str) -> str:
    return text.partition('{"name": "')[2].partition('"')[0]
