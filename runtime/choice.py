"""An exact choice among completions: probabilities over a trie of token sequences, nothing sampled.

The completions form a trie. Where it branches, the model's distribution is renormalised over the branches; where it
does not, the run is appended and decides nothing. A completion's probability is the product over its branchings: the
distribution that constrained sampling draws from, computed instead of drawn.

The trie is never built: completions in sorted order that share a path are neighbours, so a node is a range of them.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.engine import Engine
from dualtune_edge.toolkit.errors import EngineError, TemplateError
from dualtune_edge.toolkit.prompts import common_prefix

FLOOR: Final = 0.01  # alternatives are complete down to this probability


@dataclass(frozen=True)
class Alternative:
    """A completion that was not chosen."""

    name: str
    probability: float


@dataclass(frozen=True)
class Choice:
    """The most probable completion, and all others of probability `FLOOR` or more, most probable first.

    Of the winner's tokens, `decided` were chosen among several and `forced` had no alternative. `forwards` counts the
    runs of the model, those for other branches included.
    """

    winner: str
    probability: float
    alternatives: tuple[Alternative, ...]
    decided: int
    forced: int
    forwards: int


@dataclass(frozen=True, order=True)
class _Node:
    """A node of the trie: the completions [first, last) in sorted order pass through it."""

    cost: float  # -log of its probability
    first: int
    last: int
    decided: int  # branchings above it

    @property
    def probability(self) -> float:
        return math.exp(-self.cost)


@dataclass
class _Walker:
    """Moves the engine along paths behind the prompt, keeping the KV of what two paths share."""

    engine: Engine
    start: int  # tokens of the prompt
    logits: NDArray[np.float32]  # after the prompt
    path: tuple[int, ...] = ()
    forwards: int = 0

    def logits_after(self, path: tuple[int, ...]) -> NDArray[np.float32]:
        """The logits after the prompt and `path`. A path is asked for once, and never after one that it begins."""
        if not path:
            return self.logits
        common = len(common_prefix([self.path, path]))
        self.engine.rewind(self.start + common)
        self.path = path[:common]  # true also where the next line raises
        logits = self.engine.forward(path[common:])
        self.path = path
        self.forwards += 1
        return logits


def choose(engine: Engine, logits: NDArray[np.float32], completions: Mapping[str, tuple[int, ...]]) -> Choice:
    """Choose among completions of the prompt that the engine holds, whose last logits are `logits`.

    Nodes are expanded by falling probability, so the first completion reached is the winner: no open node, hence
    nothing below one, is more probable. Equal probabilities go by the order of the tokens. The search goes on until
    every open node is below `FLOOR`. Afterwards (after an error too) the engine holds the prompt and no more.

    Raises:
        TemplateError: there is no completion, or one begins another.
        EngineError: the model's logits are not finite.
        RequestError: prompt and completion are longer than the context.

    """
    entries = _sorted(completions)
    walker = _Walker(engine, len(engine.tokens), logits)
    open_nodes = [_Node(0.0, 0, len(entries), 0)]
    reached: list[_Node] = []
    try:
        while open_nodes and not (reached and open_nodes[0].probability < FLOOR):
            node = heapq.heappop(open_nodes)
            if node.last - node.first == 1:
                reached.append(node)
            else:
                for child in _expand(node, entries, walker):
                    heapq.heappush(open_nodes, child)
    finally:
        engine.rewind(walker.start)
    winner, *others = reached
    tokens, name = entries[winner.first]
    return Choice(
        winner=name,
        probability=winner.probability,
        alternatives=tuple(Alternative(entries[node.first][1], node.probability) for node in others),
        decided=winner.decided,
        forced=len(tokens) - winner.decided,
        forwards=walker.forwards,
    )


def _expand(node: _Node, entries: Sequence[tuple[tuple[int, ...], str]], walker: _Walker) -> list[_Node]:
    """The node's children where its completions first part, each with its share of the probability."""
    path = common_prefix([entries[node.first][0], entries[node.last - 1][0]])  # sorted: all between share it too
    logits = walker.logits_after(path)
    branches = [
        (token, len(list(group)))
        for token, group in itertools.groupby(entries[at][0][len(path)] for at in range(node.first, node.last))
    ]
    scores = logits[[token for token, _ in branches]].astype(np.float64)
    if not np.isfinite(scores).all():
        raise EngineError(
            "choice", found="logits that are not finite", expected="numbers", fix="Check the bundle with `inspect`."
        )
    top = scores.max()
    costs = top + math.log(np.exp(scores - top).sum()) - scores
    bounds = itertools.accumulate((size for _, size in branches), initial=node.first)
    return [
        _Node(node.cost + float(cost), first, last, node.decided + 1)
        for cost, (first, last) in zip(costs, itertools.pairwise(bounds), strict=True)
    ]


def _sorted(completions: Mapping[str, tuple[int, ...]]) -> list[tuple[tuple[int, ...], str]]:
    """(tokens, name) in the order of the tokens.

    Raises:
        TemplateError: there is none, or one begins another.

    """
    entries = sorted((tokens, name) for name, tokens in completions.items())
    if not entries:
        raise TemplateError(
            "choice", found="nothing to choose from", expected="one completion or more", fix="Add a tool."
        )
    for (tokens, name), (following, other) in itertools.pairwise(entries):
        if following[: len(tokens)] == tokens:  # whatever a sequence begins sorts right behind it
            raise TemplateError(
                "choice",
                found=f"a completion of {other!r} that begins with the whole of {name!r}'s",
                expected="completions of which none begins another",
                fix="Let the template write an end of turn behind every call.",
            )
    return entries
