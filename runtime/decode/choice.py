"""An exact choice among completions: probabilities over a trie of token sequences, nothing sampled.

The completions form a trie. Where it branches, the model's distribution is renormalised over the branches; where it
does not, the run is appended and decides nothing. A completion's probability is the product over its branchings: the
distribution that constrained sampling draws from, computed instead of drawn.

The trie is never built: completions in sorted order that share a path are neighbours, so a node is a range of them.

Forwards are saved in two ways, neither of which changes a probability. The prompt's last tokens and the run up to the
first branching are one forward. And where a branching is likely to be followed by a second one, the tokens up to that
are appended as well, so that one forward scores both.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.engines.engine import Engine, RowsEngine
from dualtune_edge.toolkit.errors import EngineError, TemplateError
from dualtune_edge.toolkit.prompts.prompter import common_prefix

FLOOR: Final = 0.01  # alternatives are complete down to this probability
FORWARD: Final = 5.0  # tokens appended besides that cost about as much as another forward (int4, 0.5B)


@dataclass(frozen=True)
class Completion:
    """A completion that was not chosen."""

    name: str
    probability: float


@dataclass(frozen=True)
class Choice:
    """The most probable completion, and all others of probability `FLOOR` or more, most probable first.

    Of the winner's tokens, `decided` were chosen among several and `forced` had no alternative. `forwards` counts the
    runs of the model that the choice made, those for other branches included.
    """

    winner: str
    probability: float
    alternatives: tuple[Completion, ...]
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
    pending: tuple[int, ...]  # the prompt's last tokens, as long as the engine lacks them
    start: int  # tokens of the prompt
    ride: bool  # whether tokens that decide nothing ride along with those that do
    ahead: bool  # whether further branchings may be scored along with one
    known: dict[tuple[int, ...], NDArray[np.float32]] = field(default_factory=dict)  # path → logits behind it
    path: tuple[int, ...] = ()
    forwards: int = 0

    def logits_after(self, path: tuple[int, ...], further: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """The logits after the prompt and `path`; those after `further`, which go on from it one by one, are kept.

        A path is asked for once, and never after one that it begins.
        """
        if path not in self.known:
            common = len(common_prefix([self.path, path]))
            if not self.pending:
                self.engine.rewind(self.start + common)
            self.path = path[:common]  # true also where the next line raises
            self._append(path, [branch for branch in further if self._fits(branch)])
        return self.known.pop(path)

    def append_prompt(self) -> None:
        """Append what is pending of it."""
        if self.pending:
            self.known[()] = self._forward(self.pending)

    def _append(self, path: tuple[int, ...], further: Sequence[tuple[int, ...]]) -> None:
        if not self.ride:
            self.append_prompt()
            for token in path[len(self.path) :]:
                self.known[path] = self._forward([token])
        elif further and isinstance(self.engine, RowsEngine):
            last = further[-1]
            tokens = [*self.pending, *last[len(self.path) :]]
            rows = [len(tokens) - len(last) + len(branch) - 1 for branch in (path, *further)]
            self.known |= zip((path, *further), self.engine.forward_rows(tokens, rows), strict=True)
            self.pending, path = (), last
            self.forwards += 1
        else:
            self.known[path] = self._forward([*self.pending, *path[len(self.path) :]])
        self.path = path

    def _forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        logits = self.engine.forward(tokens)
        self.pending = ()
        self.forwards += 1
        return logits

    def _fits(self, path: tuple[int, ...]) -> bool:
        return self.start + len(path) <= self.engine.context_length


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
    walker = _Walker(engine, (), len(engine.tokens), ride=True, ahead=False, known={(): logits})
    return _search(walker, completions, hold=False)


def choose_behind(
    engine: Engine,
    pending: Sequence[int],
    completions: Mapping[str, tuple[int, ...]],
    *,
    ride: bool = True,
    ahead: bool = True,
) -> Choice:
    """Append `pending`, the prompt's last tokens, and choose among its completions: what `choose` would, sooner.

    Afterwards the engine holds the prompt, and of the winner the tokens that were read.

    Args:
        engine: holds the rest of the prompt.
        pending: one token or more.
        completions: see `choose`.
        ride: whether the tokens up to the first branching are appended with the prompt's; if not, one by one.
        ahead: whether one forward may score several branchings, in an engine that can.

    Raises:
        TemplateError, EngineError, RequestError: as for `choose`. After an error the engine may lack `pending`.

    """
    able = ahead and isinstance(engine, RowsEngine)
    walker = _Walker(engine, tuple(pending), len(engine.tokens) + len(pending), ride, able)
    return _search(walker, completions, hold=True)


def _search(walker: _Walker, completions: Mapping[str, tuple[int, ...]], *, hold: bool) -> Choice:
    """The choice; with `hold` the engine keeps what it has read of the winner."""
    entries = _sorted(completions)
    open_nodes = [_Node(0.0, 0, len(entries), 0)]
    reached: list[_Node] = []
    held = 0
    try:
        while open_nodes and not (reached and open_nodes[0].probability < FLOOR):
            node = heapq.heappop(open_nodes)
            if node.last - node.first == 1:
                reached.append(node)
            else:
                for child in _expand(node, entries, walker):
                    heapq.heappush(open_nodes, child)
        walker.append_prompt()  # where nothing was to be decided
        if hold:
            held = len(common_prefix([walker.path, entries[reached[0].first][0]]))
    finally:
        if not walker.pending:
            walker.engine.rewind(walker.start + held)
    winner, *others = reached
    tokens, name = entries[winner.first]
    return Choice(
        winner=name,
        probability=winner.probability,
        alternatives=tuple(Completion(entries[node.first][1], node.probability) for node in others),
        decided=winner.decided,
        forced=len(tokens) - winner.decided,
        forwards=walker.forwards,
    )


_Entries = Sequence[tuple[tuple[int, ...], str]]  # (tokens, name) in the order of the tokens


def _expand(node: _Node, entries: _Entries, walker: _Walker) -> list[_Node]:
    """The node's children where its completions first part, each with its share of the probability."""
    path = _path(entries, node.first, node.last)
    further = list(_likely(entries, node.first, node.last)) if walker.ahead else []
    logits = walker.logits_after(path, further)
    branches = _branches(entries, node.first, node.last)
    scores = logits[[entries[first][0][len(path)] for first, _ in branches]].astype(np.float64)
    if not np.isfinite(scores).all():
        raise EngineError(
            "choice", found="logits that are not finite", expected="numbers", fix="Check the bundle with `inspect`."
        )
    top = scores.max()
    costs = top + math.log(np.exp(scores - top).sum()) - scores
    return [
        _Node(node.cost + float(cost), first, last, node.decided + 1)
        for cost, (first, last) in zip(costs, branches, strict=True)
    ]


def _path(entries: _Entries, first: int, last: int) -> tuple[int, ...]:
    """What the completions [first, last) begin with: sorted, all between share what the outer two do."""
    return common_prefix([entries[first][0], entries[last - 1][0]])


def _branches(entries: _Entries, first: int, last: int) -> list[tuple[int, int]]:
    """The ranges into which [first, last) parts behind its path."""
    depth = len(_path(entries, first, last))
    sizes = [len(list(group)) for _, group in itertools.groupby(entries[at][0][depth] for at in range(first, last))]
    return list(itertools.pairwise(itertools.accumulate(sizes, initial=first)))


def _likely(entries: _Entries, first: int, last: int) -> Iterator[tuple[int, ...]]:
    """Paths of the branchings below [first, last) that are worth scoring along with it.

    Before anything is known of them a branch is as likely as it has completions. Going on to its branching pays while
    that share of a forward is more than the tokens that are appended for it.
    """
    whole, start = last - first, len(_path(entries, first, last))
    while True:
        first, last = max(_branches(entries, first, last), key=lambda branch: branch[1] - branch[0])
        if last - first == 1:
            return
        path = _path(entries, first, last)
        if (last - first) / whole * FORWARD <= len(path) - start:
            return
        yield path


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
