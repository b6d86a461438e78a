"""The kit's tokenizer: equal tokens wherever a value stands, in every library that reads it."""

import json
from pathlib import Path

import onnxruntime_genai
import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.pretraining import tokenizer as bpe
from tokenizers import Tokenizer, pre_tokenizers

BASE = FOLDER / "base"
HELDOUT = (FOLDER / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
TEXTS = (
    *(message["content"] for line in HELDOUT[::5] for message in json.loads(line)["messages"] if "content" in message),
    "Don't 'stop' it's 'read me' I'd 're-do' 'tree'",
    "a  b\n\n c\t12 345 Año café 漢字 🙂 x— y",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(BASE / "tokenizer.json"))


@pytest.mark.parametrize("around", ['{"path": "%s"}', "Read %s.", "'%s'", "in %s, now", "`%s`", "(%s)"])
def test_a_value_has_the_same_tokens_wherever_it_stands(tokenizer: Tokenizer, around: str) -> None:
    for value in ("/vol/lagoon_12/Almond-x.rst", "bugfix/tulip-otter", "*.vue", "2029-09-07T17:17:00"):
        alone = tokenizer.encode(value).ids
        before = len(tokenizer.encode(around[: around.index("%")]).ids)
        assert tokenizer.encode(around % value).ids[before : before + len(alone)] == alone


def test_cutting_at_words_changes_no_token(tokenizer: Tokenizer) -> None:
    cutting = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    bytes_only = cutting.pre_tokenizer
    assert bytes_only is not None
    cutting.pre_tokenizer = pre_tokenizers.Sequence([bpe.WORDS, bytes_only])
    for text in TEXTS:
        assert cutting.encode(text).ids == tokenizer.encode(text).ids, text


def test_every_text_comes_back(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_onnxruntime_genai_gives_the_same_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((BASE / name).read_bytes())
    model = {"type": "qwen2", "vocab_size": bpe.VOCABULARY, "context_length": 2048, "decoder": {}}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": model, "search": {}}), encoding="utf-8")
    other = onnxruntime_genai.Tokenizer(onnxruntime_genai.Config(str(tmp_path)))
    for text in TEXTS:
        assert other.encode(text).tolist() == tokenizer.encode(text).ids, text
