"""The base model's beginnings: what is learnt of a text, copying from birth, and int4's grid."""

import torch
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.pretraining import base, quantized, seeding
from dualtune_edge_kit.training.pretraining.muon import orthogonal
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "base" / "tokenizer.json"))


def test_only_the_assistants_turns_are_learnt() -> None:
    tokenizer = _tokenizer()
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nDone.<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n"
    ids = tokenizer.encode(text).ids
    mask = base.learnt(ids, tokenizer.encode("<|im_end|>").ids[0], tokenizer.encode("<|im_start|>assistant\n").ids)
    learnt = [token for token, inside in zip(ids, mask, strict=True) if inside]
    assert tokenizer.decode(learnt, skip_special_tokens=False) == "Done.<|im_end|>"


def test_a_seeded_model_copies_before_any_training() -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(base.configuration(_tokenizer()))
    half = torch.randint(0, 1024, (4, 60))

    def right() -> float:
        with torch.inference_mode():
            logits = model(input_ids=torch.cat([half, half], dim=1)).logits
        return (logits[:, 60:-1].argmax(-1) == half[:, 1:]).float().mean().item()

    assert right() < 0.05
    seeding.seed_copying(model, 0)
    assert right() > 0.4


def test_int4_keeps_sixteen_values_a_block_and_the_extreme_exactly() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    rounded = quantized.rounded(weight)
    for before, after in zip(weight.view(-1, 32), rounded.view(-1, 32), strict=True):
        extreme = before.abs().argmax()
        assert torch.isclose(after[extreme], before[extreme])
        assert len(after.unique()) <= 16
        assert (after - before).abs().max() <= before.abs().max() / 8 * 1.001
    assert torch.allclose(quantized.rounded(rounded), rounded)


def test_seeing_int4_ends_with_the_weights_as_they_were() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 4), torch.nn.Linear(4, 32))
    layer = model[0]
    before = layer.weight.detach().clone()
    quantized.see_int4(layer)
    assert torch.equal(layer.weight, quantized.rounded(before))
    quantized.see_float(layer)
    assert torch.equal(layer.weight, before)


def test_muon_draws_singular_values_near_one() -> None:
    stack = torch.randn(3, 48, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(stack))
    assert values.min() > 0.3
    assert values.max() < 1.4
