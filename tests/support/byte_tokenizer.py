"""A tokenizer with a token for each byte, and the constraints' view of it."""

from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dualtune_edge.runtime.grammar.grammar import open_tokenizer

END: Final = 256  # of a turn
VOCABULARY: Final = 300  # rows of logits


def _bytes() -> Tokenizer:
    alphabet = {character: at for at, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>"])
    return tokenizer


TOKENIZER: Final = _bytes()
CONSTRAINT: Final = open_tokenizer(TOKENIZER.to_str(), vocab_size=VOCABULARY, end_of_turn=[END])
