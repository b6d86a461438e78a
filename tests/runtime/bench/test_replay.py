from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bench.replay import _OTHER_WORDS, Replay, attribute, weight_bytes
from dualtune_edge.runtime.bench.report import CallRun
from dualtune_edge.runtime.bench.requests import Request, made_requests
from dualtune_edge.runtime.bench.roofline import Rates, Roofline
from dualtune_edge.runtime.bench.scripts import Script, ScriptWriter, branchings
from dualtune_edge.runtime.bench.watched import Event, Record, Watched, watch
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import EngineKind, RowsEngine, StateEngine, open_engine
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, user
from dualtune_edge.toolkit.prompts.prompter import common_prefix

SETTINGS = SessionSettings(intra_op_threads=1, spinning=False)


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return open_bundle(exported)


@pytest.fixture(scope="module", params=["ort", "genai"])
def watched(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Watched]:
    kind: EngineKind = request.param
    with open_engine(bundle.model, SETTINGS, kind) as engine:
        yield watch(engine)


@pytest.fixture(scope="module")
def requests(bundle: Bundle) -> list[Request]:
    """One for each tool, and one that calls none."""
    quiet = Request("quiet", (user("Thank you."),), "files", None)
    return [*made_requests(bundle.manifest, 4), quiet]


@pytest.fixture(scope="module")
def runs(bundle: Bundle, watched: Watched, requests: list[Request]) -> list[CallRun]:
    replay = Replay(bundle, watched, Roofline(Rates(1e9, 1e12, 1e12)))
    return [replay.gold(request) for request in requests]


def test_a_replay_makes_the_gold_call_whatever_the_model_would_do(runs: list[CallRun], requests: list[Request]) -> None:
    for run, request in zip(runs, requests, strict=True):
        assert run.right
        assert run.tool == (request.call.name if request.call else None)
        assert run.arguments == (request.call.arguments if request.call else None)
        assert run.same


def test_the_stages_counts_add_up(runs: list[CallRun], bundle: Bundle, requests: list[Request]) -> None:
    writer = ScriptWriter(bundle)
    for run, request in zip(runs, requests, strict=True):
        for stage, script in zip(run.stages, writer.scripts(request), strict=True):
            assert (stage.stage, stage.adapter, stage.prompt) == (script.stage, script.adapter, len(script.prompt))
            assert stage.forced + stage.decided == len(script.answer)
            assert 0 <= stage.reused < stage.prompt
            forwards = [span.tokens for span in stage.spans if span.kind == "forward"]
            assert len(forwards) == stage.forwards
            assert sum(forwards) >= stage.prompt - stage.reused
            read = stage.forwards * weight_bytes(bundle, stage.adapter) / 1e6
            assert stage.roofline_ms == pytest.approx(read, abs=1e-3)  # without products weights alone count


def test_the_request_itself_is_never_reused(runs: list[CallRun], bundle: Bundle, requests: list[Request]) -> None:
    for run, request in zip(runs, requests, strict=True):
        for stage, script in zip(run.stages, ScriptWriter(bundle).scripts(request), strict=True):
            texts = [messages[0].content for messages in (request.messages, _OTHER_WORDS)]
            said, other = (bundle.tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
            prompt = list(script.prompt)
            begin = next(at for at in range(len(prompt)) if prompt[at : at + len(said)] == said)
            assert stage.reused <= begin + len(common_prefix([said, other]))


def test_a_gold_call_that_the_schema_refuses_is_refused(bundle: Bundle, watched: Watched) -> None:
    request = made_requests(bundle.manifest, 4)[3]
    replay = Replay(bundle, watched, Roofline(Rates(1e9, 1e12, 1e12)))
    with pytest.raises(DataError, match="gold call"):
        replay.first(replace(request, call=FunctionCall(name="log", arguments={"count": 12})))


def test_a_free_call_is_the_agents_own(bundle: Bundle, watched: Watched, requests: list[Request]) -> None:
    run = Replay(bundle, watched, Roofline(Rates(1e9, 1e12, 1e12))).free(requests[0])
    answer = Agent(bundle, watched).call(requests[0].messages)
    assert (run.toolset, run.tool, run.arguments) == (answer.toolset, answer.tool, answer.arguments)
    assert run.same


def test_watching_changes_no_answer_and_hides_no_ability(bundle: Bundle, requests: list[Request]) -> None:
    for kind, able in (("ort", True), ("genai", False)):
        with open_engine(bundle.model, SETTINGS, kind) as engine:  # type: ignore[arg-type]
            plain = Agent(bundle, engine).call(requests[0].messages)
            engine.rewind(0)
            seen = watch(engine)
            assert isinstance(seen, RowsEngine) is isinstance(seen, StateEngine) is able
            again = Agent(bundle, seen).call(requests[0].messages)
            assert again.model_copy(update={"timings_ms": plain.timings_ms}) == plain
            assert {event.kind for event in seen.record.events} >= {"forward", "use"}


def test_a_watched_engine_that_says_nothing_leaves_logits_alone(bundle: Bundle) -> None:
    with open_engine(bundle.model, SETTINGS) as engine:
        seen = watch(engine)
        before = engine.forward([1, 2, 3])
        engine.rewind(0)
        seen.record = Record(scripts=[Script("selection", None, (1, 2), (4, 5), "", 1)])
        assert (seen.forward([1, 2, 3]) == before).all()
        seen.rewind(0)
        assert seen.forward([1, 2]).argmax() == 4
        assert seen.forward([4]).argmax() == 5


def event(adapter: str | None, *held: int) -> Event:
    return Event("forward", 0.0, 1.0, adapter, held, 1)


def test_events_belong_to_the_stage_whose_prompt_is_held() -> None:
    scripts = [
        Script("toolset", None, (1, 2), (3,), "", 1),
        Script("selection", "a", (1, 2), (3,), "", 1),
        Script("arguments", "a", (1, 2, 9), (3,), "", None),
    ]
    events = [
        event(None),  # leads to the first prompt
        event(None, 1, 2),
        event(None, 1, 2, 3),
        event("a"),
        event("a", 1),
        event("a", 1, 2),
        event("a", 1, 2, 3),
        event("a", 1),
        event("a", 1, 2, 9),
        event("a", 1, 2, 9, 3),
        event("a", 1),  # after the last
    ]
    assert [len(found) for found in attribute(events, scripts)] == [3, 4, 4]


@given(st.sets(st.lists(st.integers(0, 2), min_size=4, max_size=4).map(tuple), min_size=1), st.data())
def test_branchings_are_where_something_else_could_follow(
    completions: set[tuple[int, ...]], data: st.DataObject
) -> None:
    winner = data.draw(st.sampled_from(sorted(completions)))
    prefixes = [winner[:length] for length in range(4)]
    following = [
        {completion[len(prefix)] for completion in completions if completion[: len(prefix)] == prefix}
        for prefix in prefixes
    ]
    assert branchings(list(completions), winner) == sum(len(tokens) > 1 for tokens in following)


def test_a_merged_adapter_reads_its_own_graph(bundle: Bundle) -> None:
    sizes = {file.path: file.size for file in bundle.manifest.files}
    merged = next(adapter for adapter in bundle.manifest.adapters if adapter.mode == "merged")
    external = next(adapter for adapter in bundle.manifest.adapters if adapter.mode == "external")
    base = sizes["model/model.onnx"] + sizes["model/model.onnx.data"]
    assert weight_bytes(bundle, None) == base
    assert weight_bytes(bundle, external.name) == base + sizes[external.path]
    assert weight_bytes(bundle, merged.name) == sum(
        sizes[f"{merged.path}/{name}"] for name in ("model.onnx", "model.onnx.data")
    )
