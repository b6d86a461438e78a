"""A bundle's prefix states: used where the key agrees, left alone with a note where not, refused when damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent, CallResult, open_bundle
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.runtime.levers import NAIVE, Levers
from dualtune_edge.runtime.reuse.prefix_states import PrefixStates
from dualtune_edge.toolkit.errors import BundleError

ONE_THREAD = SessionSettings(intra_op_threads=1)
TEXTS = ("show the log", "show the file a.txt", "sort the pictures by size")
Change = Callable[[Callable[[dict[str, Any]], object]], None]


def answers(path: Path, levers: Levers | None = None, **keywords: Any) -> list[CallResult]:
    with Agent.open(path, settings=ONE_THREAD, levers=levers, **keywords) as agent:
        return [agent.call(text, toolset=name) for text in TEXTS for name in (None, "files")]


def answer_of(result: CallResult) -> tuple[object, ...]:
    return result.toolset, result.tool, result.arguments, result.tokens.decided, result.tokens.forced


def test_every_prefix_has_a_state_as_the_engine_computes_it(exported: Path) -> None:
    bundle = open_bundle(exported)
    states = PrefixStates(bundle, ORT_KV_FORMAT)
    with OrtEngine(bundle.model, ONE_THREAD) as engine:
        for stage in bundle.manifest.stages:
            prefix = bundle.plan(stage).prefix
            found = states.snapshot(stage, prefix)
            assert prefix
            assert found is not None
            engine.use(stage.adapter)
            engine.forward(prefix)
            computed = engine.snapshot().state
            assert (found.identity, found.tokens) == (engine.identity, prefix)
            np.testing.assert_allclose(np.asarray(found.state), computed, atol=1e-5, rtol=0)


def test_stages_of_one_adapter_and_prefix_share_a_file(exported: Path) -> None:
    manifest = open_bundle(exported).manifest
    keys = [entry.key for entry in manifest.states]
    assert len(set(keys)) == len(keys)
    assert {stage.state for stage in manifest.stages} == {entry.path for entry in manifest.states}


def test_the_first_call_reads_no_prefix(exported: Path) -> None:
    bundle = open_bundle(exported)
    with Agent.open(exported, settings=ONE_THREAD) as agent:
        answer = agent.call(TEXTS[0], toolset="git")
    prefix = bundle.plan(bundle.toolset("git").selection).prefix
    assert answer.tokens.reused >= len(prefix)
    assert answer.notes == ()


@pytest.mark.parametrize(
    "levers",
    [
        NAIVE,
        Levers(states=False),
        Levers(reuse=False),
        Levers(forced=False),
        Levers(drafts=False),
        Levers(lookahead=False),
        Levers(states=False, reuse=False),
    ],
)
def test_no_lever_changes_an_answer(exported: Path, levers: Levers) -> None:
    for one, other in zip(answers(exported), answers(exported, levers), strict=True):
        assert answer_of(one) == answer_of(other)
        assert one.probability == pytest.approx(other.probability, abs=1e-3)


def test_each_lever_saves_what_it_says(exported: Path) -> None:
    def cost(levers: Levers) -> tuple[int, int]:
        results = [result.tokens for result in answers(exported, levers)]
        return sum(result.forwards for result in results), sum(result.reused for result in results)

    forwards, reused = cost(Levers())
    assert cost(Levers(forced=False))[0] > forwards
    assert cost(Levers(drafts=False))[0] >= forwards
    assert cost(Levers(states=False))[1] < reused
    assert cost(Levers(reuse=False))[1] < reused
    assert cost(NAIVE)[1] == 0


def change_key(field: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for entry in manifest["states"]:
            entry["key"][field] = value

    return change


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("identity", "another/base", "another base or adapter"),
        ("graph", "0" * 64, "other graph or adapter files"),
        ("tokens", "0" * 64, "another prefix"),
        ("kv_format", "ort/0", "another engine or KV format"),
    ],
)
def test_a_key_that_differs_is_never_used_and_told_of(
    bundle: Path, change_manifest: Change, field: str, value: object, words: str
) -> None:
    expected = answers(bundle, Levers(states=False))
    change_manifest(change_key(field, value))
    for one, other in zip(answers(bundle), expected, strict=True):
        assert answer_of(one) == answer_of(other)
        assert one.tokens.reused == other.tokens.reused
        assert one.notes
        assert all(words in note for note in one.notes)


def test_another_type_of_values_is_not_used_either(bundle: Path, change_manifest: Change) -> None:
    """Half the tokens at twice the width: the file's size agrees."""

    def change(manifest: dict[str, Any]) -> None:
        for entry in manifest["states"]:
            entry["key"]["dtype"] = "float16"
            entry["key"]["shape"][2] *= 2

    change_manifest(change)
    notes = answers(bundle)[0].notes
    assert notes
    assert "another type of KV values, another shape" in notes[0]


def test_states_in_float16_are_widened_and_answer_the_same(
    bundle: Path, change_manifest: Change, reseal: Callable[[], None]
) -> None:
    expected = answers(bundle)
    for path in (bundle / "states").iterdir():
        np.fromfile(path, dtype="<f4").astype("<f2").tofile(path)
    change_manifest(lambda manifest: [entry.update(stored="float16") for entry in manifest["states"]])
    reseal()
    for one, other in zip(answers(bundle), expected, strict=True):
        # The arguments of a model of random weights hang on rounding.
        assert (one.toolset, one.tool, one.notes) == (other.toolset, other.tool, ())
        assert (one.tokens.prompt, one.tokens.reused) == (other.tokens.prompt, other.tokens.reused)
        assert one.probability == pytest.approx(other.probability, abs=1e-2)


def test_a_float16_file_for_values_of_another_type_is_refused(bundle: Path, change_manifest: Change) -> None:
    def change(manifest: dict[str, Any]) -> None:
        for entry in manifest["states"]:
            entry["key"]["dtype"] = "float16"
            entry["stored"] = "float16"

    change_manifest(change)
    with pytest.raises(BundleError, match="they are not rounded"):
        open_bundle(bundle)


def test_the_state_of_another_adapter_of_the_same_name_is_not_used(bundle: Path, change_manifest: Change) -> None:
    def change(manifest: dict[str, Any]) -> None:
        for adapter in manifest["adapters"]:
            adapter["sha256"] = "1" * 64

    change_manifest(change)
    opened = open_bundle(bundle)
    states = PrefixStates(opened, ORT_KV_FORMAT)
    for stage in opened.manifest.stages:
        prefix = opened.plan(stage).prefix
        assert (states.snapshot(stage, prefix) is None) == (stage.adapter is not None)
        assert (states.refusal(stage, prefix) is None) == (stage.adapter is None)


def test_genai_says_that_it_cannot(exported: Path) -> None:
    result = answers(exported, engine="genai")[0]
    assert result.notes
    assert all("cannot be written" in note for note in result.notes)


def test_a_damaged_state_is_refused_before_anything_opens(bundle: Path) -> None:
    path = next((bundle / "states").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        open_bundle(bundle)


def test_a_state_cut_short_is_refused(bundle: Path, reseal: Callable[[], None]) -> None:
    path = next((bundle / "states").iterdir())
    path.write_bytes(path.read_bytes()[:-4])
    reseal()
    with pytest.raises(BundleError, match="bytes for the shape"):
        open_bundle(bundle)


def test_a_stage_whose_state_is_not_there_is_refused(bundle: Path, change_manifest: Change) -> None:
    change_manifest(lambda manifest: manifest["toolsets"][0]["selection"].update(state="states/nowhere.kv"))
    with pytest.raises(BundleError, match="nowhere"):
        open_bundle(bundle)


def test_a_state_that_vanishes_after_the_bundle_was_opened(bundle: Path) -> None:
    opened = open_bundle(bundle)
    states, stage = PrefixStates(opened, ORT_KV_FORMAT), opened.toolset("git").selection
    (bundle / str(stage.state)).unlink()
    with pytest.raises(BundleError, match="git"):
        states.snapshot(stage, opened.plan(stage).prefix)
