"""Pretrain the kit's base model: a small Qwen2, in float32, on two cores, in courses that can be resumed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM

from dualtune_edge_kit.training.pretraining import quantized, texts
from dualtune_edge_kit.training.pretraining.courses import Course, Phase
from dualtune_edge_kit.training.pretraining.muon import Muon
from dualtune_edge_kit.training.pretraining.texts import Templates
from dualtune_edge_kit.training.pretraining.tokenizer import END_OF_TEXT, END_OF_TURN, MARKS

CONTEXT: Final = 2048
_REPORT: Final = 20  # steps


def configuration(tokenizer: Tokenizer) -> Qwen2Config:
    """A Qwen2 whose widths are multiples of 64, so that int4 blocks of 32 fit."""
    return Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        num_hidden_layers=4,
        intermediate_size=640,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=64,  # wide heads distinguish equal tokens from similar ones, as copying needs
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END_OF_TURN),
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
    )


def learnt(ids: list[int], end: int, assistant: list[int], call: int | None = None) -> list[bool]:
    """For every token, whether it is learnt: assistant's turns and their ends. ``assistant`` is the start of a turn.

    With ``call``, only turns that begin with this token are learnt.
    """
    mask, inside = [False] * len(ids), False
    width = len(assistant)
    for index, token in enumerate(ids):
        starts = ids[index - width : index] == assistant if index >= width else False
        inside = (inside or starts) and not (starts and call is not None and token != call)
        mask[index] = inside
        inside = inside and token != end
    return mask


def rows(tokenizer: Tokenizer, templates: Templates, phase: Phase, seed: str) -> Iterator[tuple[list[int], list[bool]]]:
    """Endless packed rows: (tokens, which are learnt). A document that is cut off starts the next row."""
    (end,), (call,) = tokenizer.encode(END_OF_TURN).ids, tokenizer.encode(MARKS[0]).ids
    assistant = tokenizer.encode("<|im_start|>assistant\n").ids
    ids: list[int] = []
    mask: list[bool] = []
    for document in phase.source(seed, templates):
        context, text = tokenizer.encode(document.context).ids, tokenizer.encode(document.text).ids
        fresh = [False] * len(context) + learnt(text, end, assistant, call if document.calls else None)
        new = context + text
        if len(ids) + len(new) > phase.row:
            yield (ids + new)[: phase.row], (mask + fresh)[: phase.row]
            ids, mask = [], []
        if len(new) <= phase.row:
            ids, mask = ids + new, mask + fresh


def batches(
    tokenizer: Tokenizer, templates: Templates, phase: Phase, seed: str, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Steps of a phase: (tokens, learnt), both of shape (rows, row)."""
    source = rows(tokenizer, templates, phase, seed)
    for _ in range(steps):
        drawn = [next(source) for _ in range(phase.rows)]
        yield torch.tensor([ids for ids, _ in drawn]), torch.tensor([mask for _, mask in drawn])


class Trainer:
    """Muon for the layers' matrices, AdamW for the rest, in float32: bfloat16 is slower where a CPU lacks AVX-512."""

    def __init__(self, model: Qwen2ForCausalLM, course: Course, say: Callable[[str], None]) -> None:
        matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
        others = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "embed" in name]
        self._muon = Muon(matrices, weight_decay=0.05)
        self._adam = torch.optim.AdamW(others, lr=course.peak, betas=(0.9, 0.98), weight_decay=0.0)
        self._model, self._course, self._say = model, course, say
        self._weights = dict(model.named_parameters())
        self.step = 0

    def run(self, stream: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Train on all of ``stream``."""
        body: Any = torch.compile(self._model.model)  # mypy: an untyped function
        total, seen, started = 0.0, 0, time.monotonic()
        for count, (ids, mask) in enumerate(stream, start=1):
            hidden = body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][mask[:, 1:]]  # (learnt, width)
            logits = self._model.lm_head(hidden)  # (learnt, vocabulary)
            loss = functional.cross_entropy(logits, ids[:, 1:][mask[:, 1:]])
            loss.backward()  # type: ignore[no-untyped-call]
            self._update()
            seen, total = seen + ids.numel(), total + loss.item()
            if count % _REPORT == 0:
                speed = seen / (time.monotonic() - started)
                loss_now = f"loss {total / _REPORT:.4f}"
                self._say(f"step {self.step}/{self._course.steps} {loss_now} {speed:.0f} tokens/s")
                total, seen, started = 0.0, 0, time.monotonic()

    def state(self) -> dict[str, Any]:
        """The step, the weights without int4's rounding, and both optimizers' states."""
        weights = {name: weight.detach() for name, weight in self._weights.items()}
        return {"step": self.step, "weights": weights, "muon": self._muon.momenta, "adam": self._adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.step = state["step"]
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(state["weights"][name])
            for momentum, saved in zip(self._muon.momenta, state["muon"], strict=True):
                momentum.copy_(saved)
        self._adam.load_state_dict(state["adam"])

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        rate = self._course.rate(self.step)
        self._muon.step(rate)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._adam.zero_grad()
        self.step += 1


def pretrain(
    model: Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    course: Course,
    out: Path,
    state: Path,
    *,
    seed: str,
    say: Callable[[str], None],
) -> None:
    """Run a course; after every leg the model is saved to ``out``, and to ``state`` what a run goes on from."""
    trainer, templates = Trainer(model, course, say), texts.read_templates()
    if state.exists():
        trainer.load(torch.load(state, weights_only=True))
        say(f"going on from step {trainer.step}")
    for first, steps, phase in course.legs():
        if first < trainer.step:
            continue
        if phase.int4:
            quantized.see_int4(model.model)
        trainer.run(batches(tokenizer, templates, phase, f"{seed} {first}", steps))
        quantized.see_float(model.model)
        _write_state(trainer.state(), state)
        save(model, out)
        say(f"step {trainer.step}: saved")


def _write_state(state: dict[str, Any], path: Path) -> None:
    """Write the state in one piece: a run that is stopped here leaves the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(path)


def save(model: Qwen2ForCausalLM, out: Path) -> None:
    """Save the weights in float16: the file is small, and int4 needs no more."""
    trained = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    model.to(torch.float16).save_pretrained(out)
    model.to(torch.float32).load_state_dict(trained)
