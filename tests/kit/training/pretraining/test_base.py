"""The base model's beginnings: what is learnt of a text, copying from birth, int4's grid, and runs that go on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.pretraining import base, quantized, seeding, texts
from dualtune_edge_kit.training.pretraining.courses import FIRST, SECOND, Course, Phase
from dualtune_edge_kit.training.pretraining.muon import orthogonal
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "base" / "tokenizer.json"))


def test_only_the_assistants_turns_are_learnt() -> None:
    tokenizer = _tokenizer()
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nDone.<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n"
    ids = tokenizer.encode(text).ids
    mask = base.learnt(ids, tokenizer.encode("<|im_end|>").ids[0], tokenizer.encode("<|im_start|>assistant\n").ids)
    learnt = [token for token, inside in zip(ids, mask, strict=True) if inside]
    assert tokenizer.decode(learnt, skip_special_tokens=False) == "Done.<|im_end|>"


def test_of_a_text_of_calls_answers_in_words_are_not_learnt() -> None:
    tokenizer = _tokenizer()
    opening = "<|im_start|>assistant\n"
    text = f"{opening}Done.<|im_end|>\n{opening}<tool_call>x</tool_call><|im_end|>\n{opening}Done.<|im_end|>\n"
    ids = tokenizer.encode(text).ids
    (end,), (call,) = tokenizer.encode("<|im_end|>").ids, tokenizer.encode("<tool_call>").ids
    mask = base.learnt(ids, end, tokenizer.encode(opening).ids, call)
    learnt = [token for token, inside in zip(ids, mask, strict=True) if inside]
    assert tokenizer.decode(learnt, skip_special_tokens=False) == "<tool_call>x</tool_call><|im_end|>"


def test_a_seeded_model_copies_before_any_training() -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(base.configuration(_tokenizer()))
    half = torch.randint(0, _tokenizer().get_vocab_size(), (4, 60))

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


@pytest.mark.parametrize("course", [FIRST, SECOND])
def test_a_rate_rises_stays_and_falls_to_nothing(course: Course) -> None:
    rates = [course.rate(step) for step in range(course.steps)]
    assert rates[0] < rates[20] < rates[60] == course.peak
    assert rates[-1] < rates[-200] < course.peak
    assert 0 < rates[-1] < course.peak / 100


@pytest.mark.parametrize("course", [FIRST, SECOND])
def test_legs_cover_every_step_once(course: Course) -> None:
    step = 0
    for first, steps, _ in course.legs():
        assert first == step
        step += steps
    assert step == course.steps


def _tiny() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=_tokenizer().get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config)


class _StoppedError(Exception):
    pass


def test_a_run_that_is_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    source = partial(texts.documents, copying=1.0, echoing=1.0)
    phases = (Phase(2, 1, 64, source), Phase(2, 1, 64, source, int4=True), Phase(1, 1, 64, source))
    course = Course(peak=1e-2, phases=phases)

    def train(name: str, say: Callable[[str], None]) -> Qwen2ForCausalLM:
        model = _tiny()
        with torch.compiler.set_stance("force_eager"):
            base.pretrain(model, _tokenizer(), course, tmp_path / name, tmp_path / f"{name}.pt", seed="0", say=say)
        return model

    def stop(text: str) -> None:
        if text == "step 4: saved":
            raise _StoppedError

    whole = train("whole", lambda _: None)
    with pytest.raises(_StoppedError):
        train("stopped", stop)
    said: list[str] = []
    again = train("stopped", said.append)
    assert said == ["going on from step 4", "step 5: saved"]
    before, after = dict(_tiny().named_parameters()), dict(again.named_parameters())
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, after[name])
        assert not torch.equal(weight, before[name])
