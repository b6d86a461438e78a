"""Pretrain the kit's base model: a small Qwen2, from random weights, on two cores, in about 75 minutes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM

from dualtune_edge_kit.training.pretraining import quantized, texts
from dualtune_edge_kit.training.pretraining.muon import Muon
from dualtune_edge_kit.training.pretraining.texts import Templates
from dualtune_edge_kit.training.pretraining.tokenizer import END_OF_TEXT, END_OF_TURN

CONTEXT: Final = 2048
_WARM_UP: Final = 50  # steps
_DECAY: Final = 0.6  # share of the steps, at the end, over which the rate falls to zero
_REPORT: Final = 20  # steps


@dataclass(frozen=True)
class Phase:
    """A part of the training. `copying` is the share of plain copying, `echoing` the share of it that only repeats."""

    steps: int
    rows: int  # packed rows in a step
    row: int  # tokens in a row
    copying: float
    echoing: float
    int4: bool = False


@dataclass(frozen=True)
class Course:
    """Phases with one warm-up, plateau and decay of the learning rate."""

    peak: float  # learning rate of both optimizers
    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)


COURSES: Final = (
    Course(
        peak=3e-3,
        phases=(
            # Copying first: everything else needs it.
            Phase(steps=340, rows=8, row=512, copying=0.5, echoing=0.7),
            Phase(steps=3160, rows=8, row=512, copying=0.125, echoing=0.2),
            # Then long rows, since a joint prompt has 900 tokens, and last the weights in int4.
            Phase(steps=630, rows=4, row=1024, copying=0.1, echoing=0.2),
            Phase(steps=330, rows=4, row=1024, copying=0.1, echoing=0.2, int4=True),
        ),
    ),
)


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


def learnt(ids: list[int], end: int, assistant: list[int]) -> list[bool]:
    """For every token, whether it is learnt: assistant's turns and their ends. ``assistant`` is the start of a turn."""
    mask, inside = [False] * len(ids), False
    width = len(assistant)
    for index, token in enumerate(ids):
        if inside:
            mask[index] = True
            inside = token != end
        else:
            inside = ids[index - width + 1 : index + 1] == assistant
    return mask


def rows(tokenizer: Tokenizer, templates: Templates, phase: Phase, seed: int) -> Iterator[tuple[list[int], list[bool]]]:
    """Endless packed rows: (tokens, which are learnt). A document that is cut off starts the next row."""
    (end,) = tokenizer.encode(END_OF_TURN).ids
    assistant = tokenizer.encode("<|im_start|>assistant\n").ids
    ids: list[int] = []
    mask: list[bool] = []
    for document in texts.documents(seed, templates, copying=phase.copying, echoing=phase.echoing):
        context, text = tokenizer.encode(document.context).ids, tokenizer.encode(document.text).ids
        new, fresh = context + text, [False] * len(context) + learnt(text, end, assistant)
        if len(ids) + len(new) > phase.row:
            yield (ids + new)[: phase.row], (mask + fresh)[: phase.row]
            ids, mask = [], []
        if len(new) <= phase.row:
            ids, mask = ids + new, mask + fresh


def batches(tokenizer: Tokenizer, templates: Templates, phase: Phase, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A phase's steps: (tokens, learnt), both of shape (rows, row)."""
    source = rows(tokenizer, templates, phase, seed)
    for _ in range(phase.steps):
        drawn = [next(source) for _ in range(phase.rows)]
        yield torch.tensor([ids for ids, _ in drawn]), torch.tensor([mask for _, mask in drawn])


class Trainer:
    """Muon for the layers' matrices, AdamW for the rest; the rate has a warm-up, a plateau and a linear decay."""

    def __init__(self, model: Qwen2ForCausalLM, course: Course, say: Callable[[str], None]) -> None:
        matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
        others = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "embed" in name]
        self._muon = Muon(matrices, weight_decay=0.05)
        self._adam = torch.optim.AdamW(others, lr=course.peak, betas=(0.9, 0.98), weight_decay=0.0)
        self._model, self._course, self._say = model, course, say
        self._step = self._seen = 0
        self._total, self._started = 0.0, time.monotonic()

    def run(self, stream: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Train on all of ``stream``."""
        body: Any = torch.compile(self._model.model)  # mypy: an untyped function
        for ids, mask in stream:
            with torch.autocast("cpu", torch.bfloat16):
                hidden = body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][mask[:, 1:]]  # (learnt, width)
                logits = self._model.lm_head(hidden).float()  # (learnt, vocabulary)
            loss = functional.cross_entropy(logits, ids[:, 1:][mask[:, 1:]])
            loss.backward()  # type: ignore[no-untyped-call]
            self._update()
            self._seen, self._total = self._seen + ids.numel(), self._total + loss.item()
            if self._step % _REPORT == 0:
                speed = self._seen / (time.monotonic() - self._started)
                self._say(
                    f"step {self._step}/{self._course.steps} loss {self._total / _REPORT:.4f} {speed:.0f} tokens/s"
                )
                self._total = 0.0

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        steps = self._course.steps
        left = (steps - self._step) / (_DECAY * steps)
        rate = self._course.peak * min(1.0, (self._step + 1) / _WARM_UP, left)
        self._muon.step(rate)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._adam.zero_grad()
        self._step += 1


def pretrain(
    model: Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    templates: Templates,
    courses: tuple[Course, ...],
    out: Path,
    *,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Run the courses, and save the model after every phase."""
    for number, course in enumerate(courses, start=1):
        trainer = Trainer(model, course, say)
        for index, phase in enumerate(course.phases, start=1):
            if phase.int4:
                quantized.see_int4(model.model)
            trainer.run(batches(tokenizer, templates, phase, 1000 * seed + 10 * number + index))
            quantized.see_float(model.model)
            save(model, out)
            say(f"course {number}, phase {index}: saved")


def save(model: Qwen2ForCausalLM, out: Path) -> None:
    """Save the weights in float16: the file is small, and int4 needs no more."""
    trained = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    model.to(torch.float16).save_pretrained(out)
    model.to(torch.float32).load_state_dict(trained)
