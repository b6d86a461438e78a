from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dualtune_edge.runtime.decode import choice as choice_module
from dualtune_edge.runtime.decode.choice import FLOOR, Choice, choose, choose_behind
from dualtune_edge.toolkit.errors import EngineError, RequestError, TemplateError

VOCABULARY = 8
END = VOCABULARY - 1
PROMPT = (3, 1, 4)

Completions = dict[str, tuple[int, ...]]


class Toy:
    """A model whose logits are a seeded function of the whole token sequence."""

    def __init__(self, seed: int, scale: float = 3.0, context: int = 100) -> None:
        self.seed, self.scale, self.context = seed, scale, context
        self.tokens: tuple[int, ...] = ()
        self.runs: list[tuple[int, ...]] = []

    def logits(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        values = np.random.default_rng([self.seed, *tokens]).standard_normal(VOCABULARY) * self.scale
        return values.astype(np.float32)

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        assert tokens
        if len(self.tokens) + len(tokens) > self.context:
            raise RequestError("prompt", found="too many", expected="fewer", fix="Shorten it.")
        self.tokens = (*self.tokens, *tokens)
        self.runs.append(self.tokens)
        return self.logits(self.tokens)

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        self.tokens = self.tokens[:length]


def branchings(toy: Toy, completion: tuple[int, ...], completions: Completions) -> list[float]:
    """The log-probability of each decision along one completion, every position looked at."""
    logs = []
    for depth, token in enumerate(completion):
        path = completion[:depth]
        branches = sorted({other[depth] for other in completions.values() if other[:depth] == path})
        if len(branches) > 1:
            scores = toy.logits((*PROMPT, *path)).astype(np.float64)[branches]
            logs.append(float(scores[branches.index(token)] - np.logaddexp.reduce(scores)))
    return logs


@st.composite
def prefix_free(draw: st.DrawFn) -> Completions:
    """Completions over a small alphabet, so that many share a beginning; each ends in END."""
    body = st.lists(st.integers(0, 2), max_size=5).map(tuple)
    bodies = draw(st.lists(body, min_size=1, max_size=24, unique=True))
    return {f"tool-{index}": (*body, END) for index, body in enumerate(bodies)}


@given(completions=prefix_free(), seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 0.3, 3.0, 30.0, 3000.0]))
def test_it_agrees_with_scoring_every_completion_alone(completions: Completions, seed: int, scale: float) -> None:
    toy = Toy(seed, scale)
    choice = choose(toy, toy.forward(PROMPT), completions)
    probability = {name: math.exp(sum(branchings(toy, tokens, completions))) for name, tokens in completions.items()}
    assert math.isclose(sum(probability.values()), 1.0, rel_tol=1e-9)
    assert math.isclose(choice.probability, probability[choice.winner], rel_tol=1e-9)
    assert choice.probability >= max(probability.values()) * (1 - 1e-9)
    found = {alternative.name: alternative.probability for alternative in choice.alternatives}
    margin = 1e-9  # between two ways of adding up the same logarithms
    assert {name for name, p in probability.items() if p >= FLOOR + margin} - {choice.winner} <= set(found)
    assert all(probability[name] >= FLOOR - margin for name in found)
    assert all(math.isclose(p, probability[name], rel_tol=1e-9) for name, p in found.items())
    assert list(found.values()) == sorted(found.values(), reverse=True)


@given(completions=prefix_free(), seed=st.integers(0, 2**32 - 1))
def test_afterwards_the_engine_holds_the_prompt(completions: Completions, seed: int) -> None:
    toy = Toy(seed)
    choose(toy, toy.forward(PROMPT), completions)
    assert toy.tokens == PROMPT


@given(completions=prefix_free(), seed=st.integers(0, 2**32 - 1))
def test_counters_add_up_to_the_winner(completions: Completions, seed: int) -> None:
    toy = Toy(seed)
    choice = choose(toy, toy.forward(PROMPT), completions)
    tokens = completions[choice.winner]
    assert choice.decided == len(branchings(toy, tokens, completions))
    assert choice.forced == len(tokens) - choice.decided
    assert choice.forwards == len(toy.runs) - 1  # the first run was the prompt


@given(completions=prefix_free(), seed=st.integers(0, 2**32 - 1))
def test_only_probable_branchings_are_run_and_each_once(completions: Completions, seed: int) -> None:
    toy = Toy(seed)
    choice = choose(toy, toy.forward(PROMPT), completions)
    paths = [run[len(PROMPT) :] for run in toy.runs[1:]]
    assert len(set(paths)) == len(paths)
    for path in paths:
        below = [tokens for tokens in completions.values() if tokens[: len(path)] == path]
        assert len({tokens[len(path)] for tokens in below}) > 1
        mass = sum(math.exp(sum(branchings(toy, tokens, completions))) for tokens in below)
        assert mass >= min(FLOOR, choice.probability) * (1 - 1e-9)


def test_a_single_completion_needs_no_run() -> None:
    toy = Toy(0)
    choice = choose(toy, toy.forward(PROMPT), {"only": (5, 6, END)})
    assert (choice.winner, choice.probability, choice.alternatives) == ("only", 1.0, ())
    assert (choice.decided, choice.forced, choice.forwards) == (0, 3, 0)


def test_a_forced_run_costs_one_run() -> None:
    toy = Toy(0)
    choice = choose(toy, toy.forward(PROMPT), {"one": (5, 6, 0, END), "two": (5, 6, 1, END)})
    assert toy.runs == [PROMPT, (*PROMPT, 5, 6)]
    assert (choice.decided, choice.forced) == (1, 3)


def test_a_winner_below_the_floor_is_still_found() -> None:
    completions = {f"{a}{b}{c}": (a, b, c) for a in range(6) for b in range(6) for c in range(6)}
    toy = Toy(0, scale=0.0)
    choice = choose(toy, toy.forward(PROMPT), completions)
    assert choice.probability == pytest.approx(1 / 216)
    assert choice.winner == "000"  # equal probabilities: the order of the tokens


@pytest.mark.parametrize(
    "completions",
    [
        {},
        {"same": (1, END), "twin": (1, END)},
        {"short": (1,), "long": (1, END)},
        {"nothing": (), "something": (1,)},
        {"short": (1,), "between": (1, 0, 5), "other": (2,)},
    ],
)
def test_completions_that_are_no_alternatives_are_refused(completions: Completions) -> None:
    toy = Toy(0)
    logits = toy.forward(PROMPT)
    with pytest.raises(TemplateError):
        choose(toy, logits, completions)
    assert toy.tokens == PROMPT


def test_logits_that_are_not_finite_are_refused() -> None:
    toy = Toy(0)
    logits = toy.forward(PROMPT)
    logits[1] = np.nan
    with pytest.raises(EngineError, match="finite"):
        choose(toy, logits, {"one": (1, END), "two": (2, END)})


def test_a_context_that_is_too_short_leaves_the_prompt() -> None:
    toy = Toy(0, context=len(PROMPT) + 2)
    logits = toy.forward(PROMPT)
    with pytest.raises(RequestError):
        choose(toy, logits, {"one": (5, 5, 5, 1, END), "two": (5, 5, 5, 2, END)})
    assert toy.tokens == PROMPT


class Rows(Toy):
    """The same, with logits of several positions."""

    vocab_size = VOCABULARY
    adapter = identity = ""
    use = switch = snapshot = restore = interrupt = resume = close = __enter__ = __exit__ = NotImplemented  # not called

    @property
    def context_length(self) -> int:
        return self.context

    def forward_rows(self, tokens: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        held = self.tokens
        self.forward(tokens)
        return np.stack([self.logits((*held, *tokens[: row + 1])) for row in rows])


def same(one: Choice, other: Choice) -> bool:
    return (one.winner, one.probability, one.alternatives, one.decided, one.forced) == (
        other.winner, other.probability, other.alternatives, other.decided, other.forced,
    )  # fmt: skip


@settings(max_examples=50)
@given(
    completions=prefix_free(),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 3.0, 30.0]),
    held=st.integers(0, len(PROMPT) - 1),
)
def test_however_forwards_are_saved_the_choice_is_the_same(
    completions: Completions, seed: int, scale: float, held: int
) -> None:
    alone = Toy(seed, scale)
    expected = choose(alone, alone.forward(PROMPT), completions)
    for kind, ride, ahead in ((Toy, False, False), (Toy, True, True), (Rows, True, False), (Rows, True, True)):
        engine = kind(seed, scale)
        if held:
            engine.forward(PROMPT[:held])
        before = len(engine.runs)
        found = choose_behind(engine, PROMPT[held:], completions, ride=ride, ahead=ahead)
        assert same(found, expected)
        written = engine.tokens[len(PROMPT) :]
        assert engine.tokens[: len(PROMPT)] == PROMPT
        assert completions[found.winner][: len(written)] == written
        assert found.forwards == len(engine.runs) - before
        if ride:
            assert found.forwards <= 1 + expected.forwards


def test_the_prompt_and_the_first_branching_are_one_forward() -> None:
    engine = Rows(0)
    choice = choose_behind(engine, PROMPT, {"one": (5, 6, 0, END), "two": (5, 6, 1, END)})
    assert engine.runs == [(*PROMPT, 5, 6)]
    assert choice.forwards == 1
    assert engine.tokens == (*PROMPT, 5, 6), "what was read of the winner stays"


def test_what_was_read_of_another_completion_does_not_stay() -> None:
    completions = {"a": (1, 2, 0, END), "b": (1, 2, 1, END), "c": (1, 2, 3, END), "d": (4, END)}
    for seed in range(20):
        engine = Rows(seed)
        winner = choose_behind(engine, PROMPT, completions).winner
        assert engine.runs[0] == (*PROMPT, 1, 2)
        assert engine.tokens == (PROMPT if winner == "d" else (*PROMPT, 1, 2))


def test_a_likely_second_branching_is_scored_with_the_first() -> None:
    completions = {"a": (1, 2, 0, END), "b": (1, 2, 1, END), "c": (1, 2, 3, END), "d": (4, END)}
    engine = Rows(0)
    choose_behind(engine, PROMPT, completions)
    assert engine.runs == [(*PROMPT, 1, 2)]


def test_a_far_second_branching_is_not() -> None:
    run = (1, 2, 1, 2, 1, 2, 1, 2)
    engine = Rows(0)
    choose_behind(engine, PROMPT, {"a": (*run, 0, END), "b": (*run, 1, END), "c": (4, END)})
    assert engine.runs[0] == PROMPT


def test_a_context_too_short_for_looking_ahead_is_enough_for_the_choice() -> None:
    completions = {"a": (1, 2, 0), "b": (1, 2, 1), "c": (1, 2, 3), "d": (4,)}
    short, long = Rows(0, scale=0.0, context=len(PROMPT) + 1), Rows(0, scale=0.0)
    with pytest.raises(RequestError):  # the second branching itself needs two tokens
        choose_behind(short, PROMPT, completions)
    assert short.tokens == PROMPT
    assert choose_behind(long, PROMPT, completions).winner == "d"


def spread(*shares: float) -> NDArray[np.float32]:
    """Logits whose distribution is this, over the first tokens."""
    logits = np.full(VOCABULARY, -50.0, dtype=np.float32)
    logits[: len(shares)] = np.log(shares)
    return logits


def test_alternatives_are_those_of_a_hundredth_or_more() -> None:
    shares = (0.9, 0.05, 0.0296, 0.0102, 0.0098, 0.0004)
    toy = Toy(0)
    toy.forward(PROMPT)
    completions: Completions = {f"{share}": (token, END) for token, share in enumerate(shares)}
    choice = choose(toy, spread(*shares), completions)
    assert choice.winner == "0.9"
    assert [alternative.name for alternative in choice.alternatives] == ["0.05", "0.0296", "0.0102"]
    assert [alternative.probability for alternative in choice.alternatives] == pytest.approx([0.05, 0.0296, 0.0102])


def test_one_that_is_as_probable_as_the_least_is_an_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_module, "FLOOR", 0.5)
    toy = Toy(0, scale=0.0)
    choice = choose(toy, toy.forward(PROMPT), {"one": (1, END), "two": (2, END)})
    assert (choice.probability, choice.alternatives[0].probability) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("below", "beside", "steps", "ahead"),
    [
        (3, 1, 3, True),  # 3/4 of a forward, which is 5 tokens: 3.75
        (3, 1, 4, False),
        (4, 1, 3, True),
        (4, 1, 4, False),  # exactly as much: no gain
        (2, 3, 1, True),
        (2, 3, 2, False),
    ],
)
def test_a_second_branching_is_scored_where_that_is_less_than_its_share_of_a_forward(
    below: int, beside: int, steps: int, *, ahead: bool
) -> None:
    run = (7,) * steps
    completions: Completions = {f"below {token}": (*run, token, END) for token in range(below)}
    completions |= {f"beside {token}": (token, END) for token in range(beside)}
    engine = Rows(0)
    choose_behind(engine, PROMPT, completions)
    assert engine.runs[0] == ((*PROMPT, *run) if ahead else PROMPT)


def test_several_branchings_below_one_another_are_scored_at_once() -> None:
    completions: Completions = {f"{last}": (1, 2, 3, last, END) for last in range(5)}
    completions |= {"x": (1, 2, 4, END), "y": (1, 5, END), "z": (6, END)}
    engine = Rows(0, scale=0.0)
    choice = choose_behind(engine, PROMPT, completions)
    assert engine.runs == [(*PROMPT, 1, 2, 3)]
    assert choice.forwards == 1
    assert choice.winner == "z"
    assert engine.tokens == PROMPT


def test_of_several_branches_the_largest_is_looked_into() -> None:
    completions: Completions = {
        "a": (1, 0, END),
        "b": (1, 1, END),
        "c": (1, 2, END),
        "d": (2, 0, END),
        "e": (2, 1, END),
    }
    engine = Rows(0)
    choose_behind(engine, PROMPT, completions)
    assert engine.runs[0] == (*PROMPT, 1)


def test_a_branching_that_just_fits_the_context_is_scored_ahead() -> None:
    completions: Completions = {"a": (1, 2, 0), "b": (1, 2, 1), "c": (1, 2, 3), "d": (4,)}
    engine = Rows(0, context=len(PROMPT) + 2)
    choose_behind(engine, PROMPT, completions)
    assert engine.runs == [(*PROMPT, 1, 2)]
    short = Rows(0, context=len(PROMPT) + 1)
    with pytest.raises(RequestError):
        choose_behind(short, PROMPT, completions)
    assert short.runs == [PROMPT], "what does not fit is not tried with the first branching"


@pytest.mark.parametrize("kind", [Toy, Rows])
def test_choose_scores_one_branching_a_forward(kind: type[Toy]) -> None:
    completions: Completions = {"a": (1, 2, 0, END), "b": (1, 2, 1, END), "c": (1, 2, 3, END), "d": (4, END)}
    engine = kind(0, scale=0.0)
    choice = choose(engine, engine.forward(PROMPT), completions)
    assert engine.runs == [PROMPT, (*PROMPT, 1, 2)]
    assert choice.forwards == 1


def test_by_default_forwards_are_saved() -> None:
    completions: Completions = {
        "a": (5, 1, 2, 0, END),
        "b": (5, 1, 2, 1, END),
        "c": (5, 1, 2, 3, END),
        "d": (5, 4, END),
    }
    engine = Rows(0)
    choose_behind(engine, PROMPT, completions)
    assert engine.runs == [(*PROMPT, 5, 1, 2)]


def test_without_riding_every_token_is_a_forward() -> None:
    completions: Completions = {"one": (5, 6, 0, END), "two": (5, 6, 1, END)}
    engine = Rows(0)
    choice = choose_behind(engine, PROMPT, completions, ride=False)
    assert engine.runs == [PROMPT, (*PROMPT, 5), (*PROMPT, 5, 6)]
    assert choice.forwards == 3


def test_the_prompt_is_read_where_nothing_is_decided() -> None:
    engine = Rows(0)
    choice = choose_behind(engine, PROMPT, {"only": (5, END)})
    assert engine.runs == [PROMPT]
    assert (choice.forwards, choice.decided, choice.forced) == (1, 0, 2)


def test_rows_that_are_missing_are_noticed() -> None:
    class Short(Rows):
        def forward_rows(self, tokens: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
            return super().forward_rows(tokens, rows)[:-1]

    completions: Completions = {"a": (1, 2, 0, END), "b": (1, 2, 1, END), "c": (1, 2, 3, END), "d": (4, END)}
    with pytest.raises(ValueError, match="shorter"):
        choose_behind(Short(0), PROMPT, completions)
