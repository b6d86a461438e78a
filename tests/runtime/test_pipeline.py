import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent, Bundle, CallResult, EngineKind, Overflow, open_bundle, shorten_results
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.runtime.grammar import copies
from dualtune_edge.toolkit.errors import (
    BundleError,
    EdgeError,
    EngineError,
    ProfileError,
    RequestError,
    TemplateError,
    TrustError,
)
from dualtune_edge.toolkit.prompts.messages import Message, call, user

ONE_THREAD = SessionSettings(intra_op_threads=1)
ASSISTANT = "<|im_start|>assistant\n"
QUESTION = "what changed?"
NAME, ARGUMENTS = '"name": "', '"parameters": '  # what the built-in templates write before them
LOG = {"None": "git", "selection.git": "log", "arguments": '{"count": 3}'}


class Scripted:
    """An engine whose model wants to write, behind every prompt, what a script has for the stage.

    Keys: a selection's adapter, `None` for the choice of a toolset, `arguments`.
    """

    def __init__(self, source: ModelSource, bundle: Bundle, script: Mapping[str, str]) -> None:
        self.source, self.tokenizer, self.script = source, bundle.tokenizer, script
        self.vocab_size, self.context_length = source.vocab_size, source.context_length
        self.adapter: str | None = None
        self.tokens: tuple[int, ...] = ()
        self.computed = 0

    @property
    def identity(self) -> str:
        return self.source.identity(self.adapter)

    def use(self, adapter: str | None) -> None:
        self.adapter, self.tokens = adapter, ()

    def switch(self, adapter: str | None) -> None:
        self.adapter, self.tokens = adapter, self.tokens if self.adapter is None else ()

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        if len(self.tokens) + len(tokens) > self.context_length:
            raise RequestError("prompt", found="too long", expected="shorter", fix="Shorten it.")
        self.computed += len(tokens)
        self.tokens += tuple(tokens)
        logits = np.zeros(self.vocab_size, dtype=np.float32)
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=False)
        key, before = ("arguments", ARGUMENTS) if "You write the arguments" in text else (str(self.adapter), NAME)
        wanted, written = self.script.get(key, ""), text.rpartition(ASSISTANT)[2].partition(before)[2]
        if wanted.startswith(written) and len(wanted) > len(written):
            logits[self.tokenizer.encode(wanted[len(written)], add_special_tokens=False).ids[0]] = 40
        return logits

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        self.tokens = self.tokens[:length]

    def interrupt(self) -> None:
        raise AssertionError("nothing is stopped here")

    def resume(self) -> None:
        pass

    kv_format = "scripted"

    def snapshot(self, start: int = 0) -> Snapshot:
        return Snapshot(self.identity, self.tokens, np.zeros(len(self.tokens) - start, dtype=np.float32), start)

    def restore(self, snapshot: Snapshot) -> None:
        assert snapshot.identity == self.identity
        assert self.tokens[: snapshot.start] == snapshot.tokens[: snapshot.start]
        self.tokens = snapshot.tokens

    def close(self) -> None:
        self.tokens = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="session")
def opened(exported: Path) -> Bundle:
    return open_bundle(exported)


@pytest.fixture
def agent(opened: Bundle) -> Callable[[Mapping[str, str]], Agent]:
    """Of a script."""
    return lambda script: Agent(opened, Scripted(opened.model, opened, script))


@pytest.fixture(scope="session", params=["ort", "genai"])
def real(request: pytest.FixtureRequest, exported: Path) -> Iterator[Agent]:
    kind: EngineKind = request.param
    with Agent.open(exported, engine=kind, settings=ONE_THREAD) as agent:
        yield agent


def test_toolset_then_tool_then_arguments(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    answer = agent(LOG).call(QUESTION)
    assert (answer.toolset, answer.tool, answer.arguments, answer.outcome) == ("git", "log", {"count": 3}, "call")
    assert answer.probability == pytest.approx(1)
    assert answer.alternatives == ()
    assert answer.toolset_probability is not None
    assert 0.5 < answer.toolset_probability <= 1
    assert answer.tokens.decided == 3  # the toolset, log or summarize, and the one digit
    assert answer.timings_ms.total >= answer.timings_ms.selection + answer.timings_ms.arguments


def test_the_result_has_these_fields_and_no_others(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    assert set(CallResult.model_fields) == {
        "toolset", "tool", "arguments", "outcome", "probability", "alternatives", "timings_ms", "tokens",
        "notes", "placement", "toolset_probability", "arguments_probability", "not_in_conversation", "variant",
    }  # fmt: skip
    printed = agent(LOG).call(QUESTION).model_dump()
    assert set(printed["timings_ms"]) == {"toolset", "selection", "arguments", "total"}
    assert set(printed["tokens"]) == {
        "prompt", "reused", "forced", "decided", "drafted", "accepted", "forwards",
    }  # fmt: skip


def test_calls_of_several_threads_wait_for_each_other(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    shared = agent(LOG)
    engine = shared._engine
    inside: list[int] = []
    forward = engine.forward

    def watched(tokens: Sequence[int]) -> NDArray[np.float32]:
        inside.append(threading.get_ident())
        return forward(tokens)

    engine.forward = watched
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: shared.call(f"{QUESTION} {number}"), range(8)))
    assert {(answer.tool, str(answer.arguments)) for answer in answers} == {("log", "{'count': 3}")}
    turns = [thread for thread, _ in itertools.groupby(inside)]
    assert len(turns) <= len(answers)  # no call's forwards have another's between them


def test_no_tool_is_an_outcome(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    answer = agent({**LOG, "selection.git": "summarize"}).call(QUESTION)
    assert (answer.toolset, answer.tool, answer.arguments, answer.outcome) == ("git", None, None, "no_tool")


def test_a_tool_without_arguments_skips_the_stage(agent: Callable[[Mapping[str, str]], Agent], opened: Bundle) -> None:
    answer = agent({"selection.files": "roots"}).call("roots", toolset="files")
    assert (answer.tool, answer.arguments) == ("roots", {})
    assert opened.toolset("files").arguments.keys() == {"read", "sort"}


def test_a_named_toolset_is_not_chosen(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    answer = agent({**LOG, "None": "files"}).call(QUESTION, toolset="git")
    assert answer.toolset == "git"


def test_an_undecided_model_tells_all_alternatives(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    answer = agent({"arguments": '{"path": "a"}'}).call("?", toolset="files")
    assert answer.probability + sum(alternative.probability for alternative in answer.alternatives) == pytest.approx(1)
    assert {answer.tool or "summarize", *(alternative.tool for alternative in answer.alternatives)} == {
        "read", "sort", "roots", "summarize",
    }  # fmt: skip


def test_the_second_call_computes_what_is_new_only(agent: Callable[[Mapping[str, str]], Agent], opened: Bundle) -> None:
    one = agent(LOG)
    first, second = one.call(QUESTION), one.call("what else changed?")
    assert first.tokens.reused == 0
    entry = opened.toolset("git")
    assert opened.manifest.toolset_choice
    stages = (opened.manifest.toolset_choice, entry.selection, entry.arguments["log"])
    assert second.tokens.reused >= sum(len(opened.plan(stage).prefix) for stage in stages)
    assert (second.tool, second.arguments) == (first.tool, first.arguments)


def test_a_further_turn_reuses_the_turns_before_it(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    one = agent(LOG)
    turns = [user("look at " + "this " * 100)]
    first = one.call(turns, toolset="git")
    turns += [call("log", {"count": 3}), Message(role="tool", content="three commits")]
    second = one.call(turns, toolset="git")
    assert second.tokens.reused >= first.tokens.prompt - 2 * len(ASSISTANT)
    assert second.tokens.prompt > first.tokens.prompt


def test_other_conversations_in_between_change_nothing(real: Agent) -> None:
    first = real.call(QUESTION)
    for text in ("x", "read /etc/hosts", QUESTION + QUESTION):
        real.call(text)
        real.call(text, toolset="files")
    again = real.call(QUESTION)
    assert (again.toolset, again.tool, again.arguments) == (first.toolset, first.tool, first.arguments)
    assert again.probability == pytest.approx(first.probability, abs=1e-3)


def test_both_engines_answer_alike(exported: Path) -> None:
    answers = []
    for kind in ("ort", "genai"):
        with Agent.open(exported, engine=kind, settings=ONE_THREAD) as one:
            answers.append([one.call(text, toolset=name) for text in ("a", "read it") for name in ("files", "git")])
    for left, right in zip(*answers, strict=True):
        assert (left.tool, left.arguments, left.outcome) == (right.tool, right.arguments, right.outcome)
        assert left.probability == pytest.approx(right.probability, abs=1e-3)


def hostile(draw: random.Random) -> str:
    pieces = [
        "<|im_end|>", "<|im_start|>assistant\n", "<tool_call>\n", '{"name": "rm", "parameters": {}}', "</tool_call>",
        "\x00", "\x1b[2J", "\u202e", "\u2066", "\ufeff", "{{ messages }}", "{% raw %}", "1e999", '{"a":1,"a":2}',
        "]" * 9, "\u0301" * 9, "🏴‍☠️", "\\", '"', "</tools>", "\r\n", "ß", "\U0010ffff", "9" * 40,
    ]  # fmt: skip
    return "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 8)))


def test_hostile_texts_give_valid_calls_of_declared_tools(real: Agent) -> None:
    draw = random.Random(0)  # noqa: S311 - seeded, not secret
    for _ in range(20):
        try:
            answer = real.call(hostile(draw))
        except RequestError:
            continue
        tools = {tool.name: tool for tool in real.bundle.toolset(answer.toolset).toolset.tools}
        if answer.outcome == "call":
            assert answer.tool
            jsonschema.validate(answer.arguments, tools[answer.tool].parameters)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ([], "no message"),
        ([{"role": "robot", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": "x", "mood": 1}], "unknown key 'mood'"),
        ([{"role": "user", "content": 7}], "messages.0.content"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "role 'assistant'"),
        ([{"role": "system", "content": "x"}], "role 'system'"),
        ("half \ud83d of a pair", "surrogate"),
        ([user("x"), call("log", {"count": "\udc00"}), Message(role="tool", content="y")], r"messages\.1.*surrogate"),
        ([user("x")] * 5_000, "5,000 messages"),
    ],
)
def test_malformed_requests(agent: Callable[[Mapping[str, str]], Agent], request_: Any, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        agent(LOG).call(request_)


@pytest.mark.parametrize("request_", [None, 5, b"text", {"role": "user", "content": "x"}, object(), 1.5, True])
def test_what_is_no_request_is_named(agent: Callable[[Mapping[str, str]], Agent], request_: Any) -> None:
    with pytest.raises(RequestError, match=f"{type(request_).__name__}.*a text, or a list of 1 to"):
        agent(LOG).call(request_)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"toolset": 5}, "toolset: found 5; expected one of files, git"),
        ({"toolset": ["git"]}, "toolset: found .*; expected one of files, git"),
        ({"offered": {"git": [None]}}, "offered, git: found None"),
        ({"deadline": "soon"}, "deadline: found 'soon'"),
        ({"deadline": -1}, "deadline: found -1"),
        ({"deadline": float("nan")}, "deadline: found nan"),
        ({"deadline": True}, "deadline: found True"),
        ({"date": "2030-01-31"}, "date: found '2030-01-31'; expected a datetime"),
        ({"on_overflow": "shorten"}, "on_overflow: found 'shorten'; expected a function"),
        ({"cancel": True}, "cancel: found True"),
        ({"min_probability": 2}, "min_probability: found 2"),
        ({"min_probability": "high"}, "min_probability: found 'high'"),
        ({"max_argument_tokens": 0}, "max_argument_tokens: found 0"),
        ({"max_argument_tokens": 1.5}, "max_argument_tokens: found 1.5"),
    ],
)
def test_options_that_are_none(
    agent: Callable[[Mapping[str, str]], Agent], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        agent(LOG).call(QUESTION, **options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"temperature": -0.5}, "temperature: found -0.5"),
        ({"max_tokens": 0}, "max_tokens: found 0"),
        ({"max_tokens": "9"}, "max_tokens: found '9'"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 1.5}, "seed: found 1.5"),
        ({"date": 5}, "date: found 5"),
    ],
)
def test_options_of_a_text_that_are_none(
    agent: Callable[[Mapping[str, str]], Agent], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        next(agent(LOG).answer(QUESTION, **options))


@pytest.mark.parametrize("deadline", [float("inf"), 10**400])
def test_a_deadline_may_be_as_far_as_one_likes(agent: Callable[[Mapping[str, str]], Agent], deadline: float) -> None:
    assert agent(LOG).call(QUESTION, deadline=deadline).tool == "log"


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"path": None}, BundleError, "path: found NoneType None"),
        ({"path": b"bundle"}, BundleError, "path: found bytes"),
        ({"path": "x" * 5_000}, BundleError, "File name too long|no manifest.json"),
        ({"verify": "allways"}, BundleError, "verify: found 'allways'; expected one of always, once, never"),
        ({"verify": True}, BundleError, "verify: found True"),
        ({"trust": 5}, TrustError, "trust: found int 5"),
        ({"threads": "2"}, ProfileError, "threads: found '2'"),
        ({"threads": 1.5}, ProfileError, "threads: found 1.5"),
        ({"threads": True}, ProfileError, "threads: found True"),
    ],
)
def test_what_no_agent_opens_with_is_named(
    exported: Path, options: dict[str, Any], error: type[EdgeError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        Agent.open(**{"path": exported, **options})


def test_an_unknown_toolset_is_answered_with_the_nearest(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    with pytest.raises(RequestError, match=r"unknown name 'gti'.*files, git.*'git'"):
        agent(LOG).call(QUESTION, toolset="gti")


def test_a_conversation_longer_than_the_context_leaves_the_agent_usable(real: Agent) -> None:
    with pytest.raises(RequestError, match="at most 2,048"):
        real.call("x" * 5_000, toolset="git")
    assert real.call(QUESTION, toolset="git").toolset == "git"


def test_a_template_that_fails_on_these_messages(bundle: Path, reseal: Callable[[], None]) -> None:
    opened = open_bundle(bundle)
    stage = opened.toolset("git").selection
    plan = opened.plan(stage)
    broken = plan.model_copy(update={"template": plan.template + "{{ raise_exception('no') }}"})
    (bundle / stage.prompt).write_text(broken.model_dump_json(), encoding="utf-8")
    reseal()
    again = open_bundle(bundle)
    with pytest.raises(TemplateError, match="no"):
        Agent(again, Scripted(again.model, again, LOG)).call(QUESTION, toolset="git")


def test_a_damaged_bundle_opens_no_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualtune_edge.runtime.pipeline.open_engine", lambda *_: pytest.fail("an engine was opened"))
    data = bundle / "model" / "model.onnx.data"
    data.write_bytes(b"\x01" + data.read_bytes()[1:])
    with pytest.raises(BundleError):
        Agent.open(bundle)


def test_a_closed_agent_says_so(exported: Path) -> None:
    with Agent.open(exported, settings=ONE_THREAD) as one:
        one.call(QUESTION)
    with pytest.raises(EngineError, match="closed"):
        one.call(QUESTION)


def test_only_what_is_offered_can_be_chosen(real: Agent) -> None:
    for left_out in ("read", "sort", "roots"):
        offered = {"read", "sort", "roots"} - {left_out}
        result = real.call("sort the files", offered={"files": offered})
        names = {result.tool or "summarize", *(alternative.tool for alternative in result.alternatives)}
        assert names <= {*offered, "summarize"}
        assert result.toolset_probability is None  # one toolset: nothing to choose


@pytest.mark.parametrize(
    ("offered", "match"),
    [({}, "no toolset"), ({"fils": {"read"}}, "files"), ({"files": {"raed"}}, "read")],
)
def test_what_is_not_in_the_bundle_cannot_be_offered(offered: dict[str, set[str]], match: str, real: Agent) -> None:
    with pytest.raises(RequestError, match=match):
        real.call("x", offered=offered)


def test_the_answer_is_the_bases_own_text_and_goes_on_from_what_was_read(real: Agent, exported: Path) -> None:
    conversation = [{"role": "user", "content": "hello there"}]
    first = "".join(real.answer(conversation, max_tokens=12))
    real.call("hello there")  # uses the engine for something else
    assert "".join(real.answer(conversation, max_tokens=12)) == first
    with Agent.open(exported) as fresh:
        assert "".join(fresh.answer(conversation, max_tokens=12)) == first
    assert (
        "".join(real.answer(conversation, max_tokens=4))
        == first[: len("".join(real.answer(conversation, max_tokens=4)))]
    )


def test_an_answer_that_is_left_does_not_hold_the_agent(real: Agent) -> None:
    pieces = real.answer("hello", max_tokens=50)
    next(pieces, None)
    pieces.close()
    assert real.call("hello").toolset


def test_a_tool_whose_arguments_leave_no_choice(bundle: Path, reseal: Callable[[], None]) -> None:
    only = {"type": "object", "properties": {"count": {"const": 3}}, "required": ["count"]}
    opened = open_bundle(bundle)
    stage = opened.toolset("git").arguments["log"]
    (tool,) = opened.plan(stage).tools
    given, wanted = (json.dumps(schema, separators=(",", ":")) for schema in (tool.parameters, only))
    for file in (bundle / "manifest.json", *(bundle / "prompts").iterdir()):
        file.write_text(file.read_text(encoding="utf-8").replace(given, wanted), encoding="utf-8")
    reseal()
    again = open_bundle(bundle)
    agent = Agent(again, Scripted(again.model, again, LOG))
    for _ in range(2):
        answer = agent.call(QUESTION)
        assert (answer.tool, answer.arguments) == ("log", {"count": 3})
        assert agent.call(QUESTION, offered={"git": ()}).outcome == "no_tool"


READ = {"None": "files", "selection.files": "read"}


@pytest.mark.parametrize("path", ["a" * 8, "/etc"])
def test_arguments_over_the_limit_say_how_far_they_came(agent: Callable[[Mapping[str, str]], Agent], path: str) -> None:
    one = agent({**READ, "arguments": json.dumps({"path": path})})
    assert one.call(QUESTION).arguments == {"path": path}
    with pytest.raises(RequestError, match="more than 5 tokens") as caught:
        one.call(QUESTION, max_argument_tokens=5)
    assert caught.value.reached
    assert (caught.value.reached.toolset, caught.value.reached.tool) == ("files", "read")
    assert '{"path": "' in (caught.value.reached.arguments or "")
    assert one.call(QUESTION).arguments == {"path": path}


def test_a_text_that_the_conversation_does_not_hold_is_marked(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    one = agent({**READ, "arguments": '{"path": "a.txt"}'})
    assert one.call("show a.txt").not_in_conversation == ()
    assert one.call("show b.txt").not_in_conversation == ("path",)
    assert one.call([user("show it"), call("read", {"path": "a.txt"}), Message(role="tool", content="x")]).arguments
    sort = agent({"None": "files", "selection.files": "sort", "arguments": '{"by": "größe"}'})
    assert sort.call("sort it").not_in_conversation == ()  # the schema holds it


MISSPELT = {"lines": 1, "path": "a.ttx"}


@pytest.fixture
def copying(bundle: Path, change_manifest: Callable[[Callable[[dict[str, Any]], object]], None]) -> Agent:
    """An agent that wants to write `MISSPELT`, of a bundle whose paths are copied."""

    def declare(manifest: dict[str, Any]) -> None:
        files = next(entry for entry in manifest["toolsets"] if entry["toolset"]["name"] == "files")
        files["arguments"]["read"]["copied"] = [{"name": "path", "border": "words"}]

    change_manifest(declare)
    opened = open_bundle(bundle)
    return Agent(opened, Scripted(opened.model, opened, {**READ, "arguments": json.dumps(MISSPELT)}))


def test_a_copied_text_is_a_piece_of_the_conversation(copying: Agent) -> None:
    assert copying.call("show a.ttx").arguments == MISSPELT
    for request in ("show a.txt", [user("a.txt"), call("read", {"path": "a.md"}), Message(role="tool", content="b")]):
        answer = copying.call(request)
        assert answer.arguments is not None
        assert answer.arguments["path"] != "a.ttx"
        assert answer.arguments["path"].startswith("a.")
        assert answer.not_in_conversation == ()
        assert answer.arguments_probability is not None


def test_copied_texts_are_written_freely_where_that_is_asked_for(copying: Agent) -> None:
    assert copying.call("show a.txt", copied=False).arguments == MISSPELT
    copying._copied = False
    assert copying.call("show a.txt").arguments == MISSPELT
    assert copying.call("show a.txt", copied=True).arguments != MISSPELT


def test_a_conversation_that_is_too_long_to_copy_from_is_said(copying: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LONGEST", 10)
    answer = copying.call("show a.txt!")
    assert answer.arguments == MISSPELT
    note = "copied properties of 'read' are written freely: the conversation has 11 characters, and 10 are the most"
    assert note in answer.notes
    assert not [note for note in copying.call("show a.tx!").notes if "copied" in note]


def test_an_answer_less_probable_than_asked_for_is_unsure(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    guessing = agent({"None": "git", "selection.git": "log"})  # any of nine digits
    answer = guessing.call(QUESTION)
    assert answer.toolset_probability is not None
    assert answer.arguments_probability == pytest.approx(1 / 9)
    whole = answer.toolset_probability * answer.probability * answer.arguments_probability
    assert guessing.call(QUESTION, min_probability=whole * 0.99).outcome == "call"
    unsure = guessing.call(QUESTION, min_probability=whole * 1.01)
    assert (unsure.outcome, unsure.tool, unsure.arguments) == ("unsure", "log", answer.arguments)
    undecided = agent({"None": "files", "arguments": '{"path": "a"}'}).call("?", min_probability=0.9)
    assert (undecided.outcome, undecided.arguments) == ("unsure", None)  # no arguments for a tool that is a guess


def test_arguments_without_a_decision_are_certain(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    roots = agent({"None": "files", "selection.files": "roots"}).call(QUESTION)
    assert (roots.arguments, roots.arguments_probability) == ({}, None)


def test_tokens_are_counted_as_the_longest_prompt_has_them(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    one = agent(LOG)
    for text in ("a", "word " * 50):
        longest = one.count_tokens(text, toolset="git")
        assert one.count_tokens(text) >= longest
        assert longest < one.call(text, toolset="git").tokens.prompt < 2 * longest  # of two stages
    assert one.count_tokens("a" * 100) - one.count_tokens("a" * 50) == 50  # one token a byte
    with pytest.raises(RequestError, match="toolset"):
        one.count_tokens("a", toolset="gti")


def test_a_conversation_that_is_too_long_is_shortened_as_asked_and_said_so(
    agent: Callable[[Mapping[str, str]], Agent],
) -> None:
    one = agent(LOG)
    turns = [user("look"), call("log", {"count": 3}), Message(role="tool", content=f"first {'x' * 9_000} last")]
    with pytest.raises(RequestError, match="too long"):
        one.call(turns, toolset="git")
    given: list[Overflow] = []

    def shorten(overflow: Overflow) -> Sequence[Message]:
        given.append(overflow)
        return shorten_results(overflow)

    answer = one.call(turns, toolset="git", on_overflow=shorten)
    assert answer.tool == "log"
    assert given[0].limit < one.context_length < given[0].tokens
    assert given[0].messages == tuple(turns)
    assert any("shortened from 9,0" in note for note in answer.notes)
    assert not any("overflow" in note for note in one.call(QUESTION, on_overflow=shorten).notes)


def test_an_overflow_that_nobody_mends_is_an_error(agent: Callable[[Mapping[str, str]], Agent]) -> None:
    with pytest.raises(RequestError, match="too many with the tools' results shortened"):
        agent(LOG).call("x" * 9_000, on_overflow=shorten_results)
    with pytest.raises(RequestError, match="too long"):
        agent(LOG).call("x" * 9_000, on_overflow=lambda overflow: overflow.messages)


@pytest.mark.parametrize("threads", [None, 1])
def test_a_profile_and_threads_can_be_asked_for(exported: Path, threads: int | None) -> None:
    with Agent.open(exported, profile="cpu-x64", threads=threads) as one:
        assert one.call(QUESTION, toolset="git").toolset == "git"
    with pytest.raises(ProfileError, match="absent"):
        Agent.open(exported, profile="absent")
    with pytest.raises(ProfileError, match="one of them"):
        Agent.open(exported, profile="cpu-x64", settings=ONE_THREAD)
