from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dualtune_edge.runtime.decode.repetition import LIST, TEXT, TIMES, repetition
from dualtune_edge.runtime.decode.sources import Sources
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.prompt_plan import Frame

FRAME = Frame(tokens=(), pending='": ', tail="}", item_separator=", ", key_separator=": ", ascii_only=False)
BYTES = Tokenizer(models.BPE(vocab={c: at for at, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES.decoder = decoders.ByteLevel()
BYTES.add_special_tokens(["<end>"])
TOKENIZER = LLTokenizer(BYTES.to_str(), eos_token=256)  # one token a byte
letters = st.text("abé\\n ", min_size=1, max_size=TEXT // TIMES // 2)


def found(written: str, *said: str) -> Any:
    sources = Sources.of([user(text) for text in said], FRAME)
    return repetition(TOKENIZER.tokenize_str(FRAME.pending + written), FRAME.pending, TOKENIZER, sources)


@given(piece=letters, before=st.text("xyz", max_size=9))
def test_a_piece_over_and_over_in_a_text_is_found_whatever_it_is(piece: str, before: str) -> None:
    written = f'{{"path": "{before}{piece * TEXT}'
    repeated = found(written)
    assert repeated.times >= TIMES
    assert written.endswith(repeated.piece)


@given(piece=letters)
def test_what_the_conversation_repeats_may_be_repeated(piece: str) -> None:
    assert found(f'{{"path": "{FRAME.dumps({"": piece * TEXT})[5:-2]}', f"write {piece * TEXT} here") is None


@pytest.mark.parametrize(
    "written",
    [
        '{"path": "' + "a" * (TEXT - 1),
        '{"path": "' + "".join(f"{number} " for number in range(TEXT)),
        '{"rows": [' + "0, " * (TEXT // 3 + 1),
        '{"rows": [' + '"a", ' * (TEXT // 5 + 1),
        '{"rows": [' + "[0, 0], " * (LIST // 8 - 1),
    ],
)
def test_a_few_of_a_kind_are_no_repetition(written: str) -> None:
    assert found(written) is None


@pytest.mark.parametrize("item", ["0, ", '"a", ', '{"x": 1}, ', "[[]], "])
def test_a_list_of_the_same_without_end_is_found_later(item: str) -> None:
    assert found('{"rows": [' + item * (LIST // len(item))) is None
    assert found('{"rows": [' + item * (LIST // len(item) + 2)).times >= TIMES
