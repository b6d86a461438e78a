"""What a base knows by itself, in counts: every kind is asked, and a call is right only in all of its tokens."""

import pytest
import torch
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.pretraining import probe
from dualtune_edge_kit.training.pretraining.probe import Share
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM


def test_every_kind_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "COUNT", 2)
    tokenizer = Tokenizer.from_file(str(FOLDER / "base" / "tokenizer.json"))
    model = Qwen2ForCausalLM.from_pretrained(FOLDER / "base", dtype=torch.float32).eval()
    shares = probe.probe(model, tokenizer)
    assert len(shares) == 26
    assert all(share.calls == 2 and 0 <= share.whole <= share.tools <= 2 for share in shares.values())
    assert shares["plain, arguments"].tools == 2  # one tool alone is shown
    assert len([kind for kind in shares if kind.startswith("kin, ")]) == 12


def test_the_table_has_a_kind_a_row() -> None:
    table = probe.table({"plain, shared": Share(calls=60, tools=45, whole=30)})
    assert table.splitlines()[2:] == ["| plain, shared | 75 | 50 |"]
