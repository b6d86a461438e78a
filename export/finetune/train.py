"""Decoupled fine-tuning: one run, from trajectories to an adapter folder."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from itertools import islice
from typing import Final

import torch
from peft import PeftModel
from torch.nn.utils import clip_grad_norm_

from dualtune_edge.export.finetune.adapter_folder import write_adapter_folder
from dualtune_edge.export.finetune.base import Base
from dualtune_edge.export.finetune.batches import batches, learning_rate, shared_prefix, summed_loss
from dualtune_edge.export.finetune.masks import Sample
from dualtune_edge.export.finetune.report import FinetuneReport, Record, Step, fingerprint, origin
from dualtune_edge.export.finetune.run_state import RunState, load_state, state_path
from dualtune_edge.export.finetune.samples import make_samples, prompt_tools
from dualtune_edge.export.finetune.settings import FinetuneSettings, Stage
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import refuse_existing, staged_folder
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.tool_files import read_tools

# The ordinary adapter writes whole calls, in the layout of the arguments' stage.
_TEMPLATES: Final[dict[Stage, str]] = {"selection": "selection", "arguments": "arguments", "joint": "arguments"}
OnStep = Callable[[Step], None]


def finetune(settings: FinetuneSettings, progress: OnStep | None = None, *, base: Base | None = None) -> FinetuneReport:
    """Train one adapter and publish its folder.

    Args:
        settings: of the run.
        progress: told of every step.
        base: the loaded `settings.base`, where several adapters are trained; None loads it for this run.

    Raises:
        EdgeError: of the kind of what cannot be used: the output, the base, the tools, the template or the data.

    """
    refuse_existing(settings.output)
    with contextlib.ExitStack() as stack:
        base = base or stack.enter_context(Base.open(settings.base))
        stack.enter_context(_threads(settings.threads))
        return _run(settings, base, progress)


def _run(settings: FinetuneSettings, base: Base, progress: OnStep | None) -> FinetuneReport:
    template = _template(settings, base)
    tools = prompt_tools(settings, read_tools(settings.tools))
    prompter = Prompter(template, base.checkpoint.tokenizer, tools, settings.tool)
    made = make_samples(settings, prompter, settings.max_length or base.checkpoint.context_length)
    source = origin(settings, base.checkpoint, template)
    path = state_path(settings.output)
    state = load_state(path, fingerprint(source), resume=settings.resume) or RunState(fingerprint(source))
    counts = {
        "samples": len(made.samples),
        "dropped_long": made.dropped_long,
        "dropped_kept": made.dropped_kept,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        with base.adapted(settings) as adapted, staged_folder(settings.output) as folder:
            started = time.perf_counter()
            _train(settings, adapted, made.samples, state, progress)
            seconds = time.perf_counter() - started
            outcome = {"steps": len(state.losses), "learnt": state.learnt, "losses": tuple(state.losses)}
            record = Record(**source.model_dump(), **counts, **outcome)
            write_adapter_folder(folder, adapted, getattr(torch, settings.dtype), template, record)
    path.unlink(missing_ok=True)
    return FinetuneReport(
        output=str(settings.output),
        stage=settings.stage,
        tool=settings.tool,
        tokens=state.tokens,
        seconds=seconds,
        **counts,
        **outcome,
    )


def _train(
    settings: FinetuneSettings,
    adapted: PeftModel,
    samples: Sequence[Sample],
    state: RunState,
    progress: OnStep | None,
) -> None:
    """Make the steps that `state` has not made yet."""
    model = adapted.get_base_model()  # the adapter's layers are in it
    trained = {name: each for name, each in adapted.named_parameters() if each.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), weight_decay=settings.weight_decay, fused=True)
    _restore(state, trained, optimizer)
    prefix, done = shared_prefix(samples), len(state.losses)
    steps = settings.epochs * math.ceil(len(samples) / settings.batch_size)
    steps = min(steps, settings.max_steps or steps)
    model.train()
    for step, batch in enumerate(islice(batches(samples, settings.batch_size, settings.seed), done, steps), done):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak=settings.learning_rate, warm_up=settings.warm_up_steps)
        learnt, loss = sum(sample.learnt for sample in batch), 0.0
        size = settings.micro_batch or len(batch)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast):
                mean = summed_loss(model, prefix, part) / learnt
            torch.autograd.backward(mean)
            loss += mean.item()
            state.tokens += len(prefix) + sum(len(sample.tokens) - len(prefix) for sample in part)
        _refuse_divergence(loss, step)
        clip_grad_norm_(trained.values(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        state.losses.append(loss)
        state.learnt += learnt
        if settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0:
            _keep(state, trained, optimizer, settings)
        if progress:
            progress(Step(step + 1, steps, loss))
    model.eval()


def _keep(
    state: RunState,
    trained: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: FinetuneSettings,
) -> None:
    state.adapter = {name: each.detach() for name, each in trained.items()}
    state.optimizer = optimizer.state_dict()
    state.random = torch.get_rng_state()
    state.save(state_path(settings.output))


def _restore(state: RunState, trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    if state.random is None:
        return
    with torch.no_grad():
        for name, each in trained.items():
            each.copy_(state.adapter[name])
    optimizer.load_state_dict(state.optimizer)
    torch.set_rng_state(state.random)


def _refuse_divergence(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise SpecError(
            "learning_rate",
            found=f"a loss of {loss} at step {step + 1}",
            expected="a finite loss",
            fix="Lower the learning rate, or warm up over more steps.",
        )


def _template(settings: FinetuneSettings, base: Base) -> ChatTemplate:
    """The settings' template, else the stage's built-in one."""
    checkpoint = base.checkpoint
    if settings.template:
        return ChatTemplate.read(settings.template, bos=checkpoint.bos, eos=checkpoint.eos)
    name = _TEMPLATES[settings.stage]
    file = resources.files("dualtune_edge.toolkit") / "templates" / f"{name}.jinja"
    where = f"built-in template for {name}"
    return ChatTemplate(file.read_text(encoding="utf-8"), where=where, bos=checkpoint.bos, eos=checkpoint.eos)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute with this many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
