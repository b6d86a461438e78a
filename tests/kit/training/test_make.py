"""A base is made in two courses, and a run that was stopped goes on in the one it was in."""

from functools import partial
from pathlib import Path

import pytest
import torch
from dualtune_edge_kit.training import make
from dualtune_edge_kit.training.pretraining import courses, texts
from dualtune_edge_kit.training.pretraining.courses import Course, Phase
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig


def test_two_courses_make_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = partial(texts.documents, copying=1.0, echoing=1.0)
    tiny = Course(peak=1e-3, phases=(Phase(steps=1, rows=1, row=64, source=source),))
    for name in ("FIRST", "SECOND"):
        monkeypatch.setattr(courses, name, tiny)
    monkeypatch.setattr(make, "_TOKENIZER_TEXTS", 40)
    monkeypatch.setattr(make, "VOCABULARY", 1030)
    said: list[str] = []
    monkeypatch.setattr(make, "_say", said.append)
    make.make_tokenizer(tmp_path)
    make.make_base(tmp_path)
    assert said == ["step 1: saved"] * 2
    made = tmp_path / "base"
    config = AutoConfig.from_pretrained(made)
    assert (config.num_hidden_layers, config.vocab_size) == (6, 1030)
    assert Tokenizer.from_file(str(made / "tokenizer.json")).get_vocab_size() == 1030
    assert not list(made.glob("*.pt"))
    weights = load_file(made / "model.safetensors")

    (tmp_path / "courses" / "second" / "state.pt").unlink()  # as if stopped at the second course's beginning
    make.make_base(tmp_path)
    assert said[2:] == ["going on from step 1", "step 1: saved"]
    again = load_file(made / "model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in weights.items())
