"""The kit's byte-level BPE: a value has the same tokens at every place, so a copy of it copies tokens.

A word never includes the space before it, digits and punctuation marks are single tokens, and so are ChatML's marks.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY: Final = 1024
END_OF_TEXT: Final = "<|endoftext|>"
END_OF_TURN: Final = "<|im_end|>"
SPECIAL: Final = (END_OF_TEXT, "<|im_start|>", END_OF_TURN)
WORDS: Final = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\p{L}\p{N}]"), behavior="isolated")
_BYTES: Final = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
MARKS: Final = ("<tool_call>", "</tool_call>")  # single tokens, but not special: decoding keeps them


def train(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of `VOCABULARY` tokens; the special ones come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([WORDS, _BYTES])
    tokenizer.decoder = decoders.ByteLevel()
    specials = [
        *(AddedToken(text, special=True, normalized=False) for text in SPECIAL),
        *(AddedToken(text, special=False, normalized=False) for text in MARKS),
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The learnt merges never cross words, so splitting at words changes no token any more. Without that regular
    # expression onnxruntime-genai, which knows few, reads the file.
    tokenizer.pre_tokenizer = _BYTES
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, template: str) -> None:
    """Write the tokenizer's files and the chat template, for transformers, tokenizers and onnxruntime-genai."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8", newline="\n")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")
