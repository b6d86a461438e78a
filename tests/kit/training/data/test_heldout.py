# ruff: noqa: S311 - values drawn by seed, not secrets
"""The held-out set shares no sentence, no value and no value's word with training."""

import itertools
import json
import re
from pathlib import Path
from random import Random

from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets, trajectories, values, words
from dualtune_edge_kit.training.data.toolsets import Wording
from dualtune_edge_kit.training.data.typed import conversations, requests
from dualtune_edge_kit.training.pretraining import texts

from dualtune_edge.toolkit.prompts.trajectories import read_trajectories

HELDOUT = FOLDER / "heldout.jsonl"
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def test_word_pools_share_no_word() -> None:
    for kind in ("nouns", "verbs", "extensions", "media", "roots", "prefixes", "digits"):
        assert not set(getattr(values.TRAIN, kind)) & set(getattr(values.HELDOUT, kind)), kind
    assert not set(words.TRAIN_NOUNS + words.TRAIN_VERBS) & set(words.HELDOUT_NOUNS + words.HELDOUT_VERBS)


def _spellings(wording: Wording) -> set[str]:
    """All sentences that a wording stands for, slots blanked, in plain form."""
    parts = _CHOICE.split(wording.text)
    options = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    joined = ("".join(chosen) for chosen in itertools.product(*options))
    return {" ".join(re.sub(r"\{\w+\}", "{}", text).lower().rstrip("?.").split()) for text in joined}


def test_no_heldout_sentence_is_a_training_sentence() -> None:
    polite = [word.lower() for word in (*toolsets.POLITE, "")]
    for name in toolsets.NAMES:
        sentences = toolsets.load(name).sentences
        train = {
            f"{start} {text}".strip()
            for (tool, split), wordings in sentences.items()
            if split == "train"
            for wording in (*wordings, *requests.typed_wordings(name)[tool])
            for text in _spellings(wording)
            for start in polite
        }
        for (tool, split), wordings in sentences.items():
            if split == "heldout":
                for wording in wordings:
                    assert not _spellings(wording) & train, (tool, wording.text)


def test_no_heldout_word_appears_in_training_texts() -> None:
    heldout = set(words.HELDOUT_NOUNS + words.HELDOUT_VERBS)
    documents = itertools.islice(texts.documents(3, texts.read_templates(), copying=0.2, echoing=0.2), 300)
    said = set(re.findall("[a-z]+", " ".join(document.context + document.text for document in documents).lower()))
    for _, messages in trajectories.generate(3, "train", 300):
        for message in messages:
            said |= set(re.findall("[a-z]+", message.content.lower()))
    for messages in conversations.conversations(3, "train", 300):
        said |= {word for message in messages for word in re.findall("[a-z]+", message.content.lower())}
    assert not said & heldout


def test_no_invented_word_is_held_out_by_chance() -> None:
    rng = Random(0)
    drawn = {words.invented(rng) for _ in range(100_000)}
    assert not drawn & set(words.HELDOUT_NOUNS + words.HELDOUT_VERBS)
    assert len(drawn) > 50_000


def test_the_committed_set_is_what_its_seed_makes(tmp_path: Path) -> None:
    count = len(HELDOUT.read_text(encoding="utf-8").splitlines())
    trajectories.write(tmp_path / "again.jsonl", list(trajectories.generate(0, "heldout", count)))
    assert (tmp_path / "again.jsonl").read_bytes() == HELDOUT.read_bytes()


def test_the_committed_set_holds_over_500_calls_of_all_tools_and_turns_without() -> None:
    calls: list[str] = []
    plain = 0
    for name in toolsets.NAMES:
        for trajectory in read_trajectories(HELDOUT, name):
            answers = [message for message in trajectory.messages if message.role == "assistant"]
            calls += [message.tool_calls[0].function.name for message in answers if message.tool_calls]
            plain += sum(not message.tool_calls for message in answers)
    assert len(calls) >= 500
    assert plain >= 100
    assert set(calls) == {tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}


def test_every_generated_call_is_said_in_its_request() -> None:
    rng = Random(11)
    for name in toolsets.NAMES:
        for tool, split in toolsets.load(name).sentences:
            asked = toolsets.request(rng, name, tool, split)
            for value in json.loads(json.dumps(asked.call.arguments)).values():
                if isinstance(value, str) and value not in {"local", "remote", "all", "name", "size"}:
                    assert value in asked.text or value.lower() in asked.text.lower(), asked
