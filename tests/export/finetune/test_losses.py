"""Losses and weights against code that is not ours.

The first step's loss against transformers alone: `apply_chat_template`, a mask found in its text, a plain forward. All
steps and the adapter at the end against transformers' `Trainer` and PEFT, which get the same samples and batches.

Qwen2.5's and Llama 3.1's templates are as published. Gemma 3's own writes no calls: its turns, with calls as JSON, are
what its documentation shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from dualtune_edge_kit.random_checkpoint import SHAPES, write_checkpoint
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)

from dualtune_edge.export.finetune.batches import batches, learning_rate
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import RunData, finetune, opened

FAMILIES = Path(__file__).parents[2] / "toolkit" / "prompts" / "families"
GEMMA = """\
{{ bos_token }}<start_of_turn>user
{%- for tool in tools %}

{{ tool | tojson }}
{%- endfor %}<end_of_turn>
{% for message in messages %}<start_of_turn>{{ 'model' if message.role == 'assistant' else 'user' }}
{% if message.tool_calls -%}
{%- set call = message.tool_calls[0].function -%}
{"name": {{ call.name | tojson }}, "parameters": {{ call.arguments | tojson }}}
{%- else -%}
{{ message.content }}
{%- endif %}<end_of_turn>
{% endfor %}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
MODELS = {
    "qwen2.5": ("qwen2", (FAMILIES / "qwen2.5.jinja").read_text(encoding="utf-8")),
    "llama3.1": ("llama", (FAMILIES / "llama3.1.jinja").read_text(encoding="utf-8")),
    "gemma3": ("gemma3_text", GEMMA),
}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
FIELDS: dict[str, dict[str, Any]] = {
    "gemma3": {"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}
    | {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
}
SPECIAL = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"]
PSEUDO = {  # the entry that a selection has beside the tools, as docs/fine-tuning.md says
    "type": "function",
    "function": {
        "name": "summarize",
        "description": "Answer the user without calling a tool",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
Span = Callable[[str, int, dict[str, Any]], tuple[int, int]]


def name_span(text: str, start: int, function: dict[str, Any]) -> tuple[int, int]:
    """The name, and the character that closes it."""
    at = text.index(function["name"], start)
    return at, at + len(function["name"]) + 1


def arguments_span(text: str, start: int, _function: dict[str, Any]) -> tuple[int, int]:
    """The object behind the name."""
    at = text.index("{", text.index('",', start))
    return at, json.JSONDecoder().raw_decode(text, at)[1]


def call_span(text: str, start: int, _function: dict[str, Any]) -> tuple[int, int]:
    """To the token that ends the turn."""
    return start, max(text.rindex(end, start) + len(end) for end in (*SPECIAL, "<|im_end|>") if end in text[start:])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("objective", "span"), [("selection", name_span), ("arguments", arguments_span), ("joint", call_span)]
)
def test_the_loss_is_that_of_the_reference(
    model: str, objective: str, span: Span, settings: Any, tmp_path: Path
) -> None:
    tool = "read" if objective == "arguments" else None
    folder, source = base_of(model, tmp_path)
    template = tmp_path / "template.jinja"
    template.write_text(source, encoding="utf-8")
    run = settings(
        base=folder, objective=objective, tool=tool, template=template, batch_size=9, max_steps=1, threads=1, rank=2
    )
    lines = [json.loads(line)["messages"] for line in run.data.read_text(encoding="utf-8").splitlines()]
    tools = [
        {"type": "function", "function": {"name": entry["name"], "description": entry["description"]}
         | {"parameters": entry["inputSchema"]}}
        for entry in json.loads(run.tools.read_text(encoding="utf-8"))["tools"]
    ]  # fmt: skip
    turns = [
        (messages[:index], turn) for messages in lines for index, turn in enumerate(messages) if answers(turn, tool)
    ]
    wanted = reference(folder, source, tools if tool else [*tools, PSEUDO], turns, span, named=objective == "selection")
    report = finetune(run)
    assert report.samples == len(turns)
    assert report.losses[0] == pytest.approx(wanted, rel=1e-5)


def base_of(model: str, tmp_path: Path) -> tuple[Path, str]:
    """A seeded base whose tokenizer has the family's control tokens."""
    model_type, source = MODELS[model]
    folder = tmp_path / "base"
    write_checkpoint(
        folder,
        replace(SHAPES["tiny"], context=8192, model_type=model_type, settings=FIELDS.get(model, {})),
        seed=3,
        dtype=torch.float32,
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, source


def answers(turn: dict[str, Any], tool: str | None) -> bool:
    if turn["role"] != "assistant":
        return False
    return tool is None or (bool(turn.get("tool_calls")) and turn["tool_calls"][0]["function"]["name"] == tool)


def reference(folder: Path, source: str, tools: list[Any], turns: list[Any], span: Span, *, named: bool) -> float:
    """The mean loss of the tokens in the spans, in nats, by transformers alone; `named`: calls are their names."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>")  # noqa: S106
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    loss, learnt = 0.0, 0
    for context, turn in turns:
        function = function_of(turn, named=named)
        answer = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
        render = {"tools": tools, "chat_template": source, "tokenize": False}
        before = [plain(message) for message in context]
        prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, **render)
        text = tokenizer.apply_chat_template([*before, answer], **render)
        assert text.startswith(prompt)
        start, end = span(text, len(prompt), function)
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        tokens = torch.tensor([encoded["input_ids"]])
        mask = torch.tensor([start <= first < end for first, _ in encoded["offset_mapping"]])
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
        loss, learnt = loss + float(losses[mask[1:]].sum()), learnt + int(mask.sum())
    return loss / learnt


def function_of(turn: dict[str, Any], *, named: bool) -> dict[str, Any]:
    if not turn.get("tool_calls"):
        return {"name": "summarize", "arguments": {}}
    function = turn["tool_calls"][0]["function"]
    return {"name": function["name"], "arguments": {} if named else json.loads(function["arguments"])}


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message with its arguments as an object, as templates read them."""
    if not message.get("tool_calls"):
        return message
    return {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": function_of(message, named=False)}
    ]}  # fmt: skip


class StepTrainer(Trainer):
    """Trainer, which rounds the losses that it logs: here they are kept as they are, and batches come in order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.losses: list[float] = []

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **options)
        self.losses.append(float(loss))
        return loss

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("qwen2.5", {}),
        ("llama3.1", {"micro_batch": 1, "rslora": False}),
        ("gemma3", {"weight_decay": 0.1}),
        ("gemma3", {"base_bits": 4}),
        ("gemma3", {"optimizer": "adamw-8bit", "rank": 64}),
    ],
)
def test_losses_and_adapter_are_those_of_trainer(
    model: str, changes: dict[str, Any], settings: Any, tmp_path: Path
) -> None:
    """Batches of two, the last one of an epoch of one; samples of unlike length, so a mean of means would differ."""
    if changes.keys() & {"base_bits", "optimizer"}:
        pytest.importorskip("bitsandbytes", reason="the wheel of bitsandbytes does not exist for this system")
    folder, source = base_of(model, tmp_path)
    template = tmp_path / "template.jinja"
    template.write_text(source, encoding="utf-8")
    run = settings(
        base=folder, objective="joint", template=template, max_steps=4, warm_up_steps=0, max_grad_norm=0.5, threads=1,
        seed=7, **changes,
    )  # fmt: skip
    with opened(run) as (base, _):
        samples = RunData.read(run, base).samples.samples
    drawn = list(islice(batches(samples, run.batch_size, run.seed), run.max_steps))
    report = finetune(run)
    losses, adapter = by_trainer(run, drawn, tmp_path / "trainer")
    assert report.losses == pytest.approx(losses, abs=1e-5)
    assert report.losses[0] - report.losses[-1] > 0.2  # a step changes the losses behind it
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (run.output, adapter))
    assert ours.keys() == theirs.keys()
    apart = torch.cat([(tensor - theirs[name]).abs().flatten() for name, tensor in ours.items()])
    if run.optimizer == "adamw-8bit":  # where rounding decides between two codes of a moment, a step is some % longer
        assert (apart > 1e-5).float().mean() < 1e-3
        assert apart.max() < 0.1 * run.learning_rate
    else:
        assert apart.max() < 1e-5


def by_trainer(run: FinetuneSettings, drawn: Sequence[Sequence[Sample]], output: Path) -> tuple[list[float], Path]:
    """The losses of these batches, and the adapter's folder, by Trainer and PEFT."""
    config = LoraConfig(
        task_type="CAUSAL_LM", r=run.rank, lora_alpha=run.alpha, use_rslora=run.rslora, target_modules=[*run.targets]
    )
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    quantized = {"quantization_config": nf4} if run.base_bits else {}
    model = AutoModelForCausalLM.from_pretrained(run.base, dtype=torch.float32, **quantized)
    if run.base_bits:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    torch.manual_seed(run.seed)
    model = get_peft_model(model, config)
    arguments = TrainingArguments(
        output_dir=str(output), use_cpu=True, max_steps=len(drawn), per_device_train_batch_size=1, seed=run.seed,
        learning_rate=run.learning_rate, lr_scheduler_type="cosine", warmup_steps=0, weight_decay=run.weight_decay,
        max_grad_norm=run.max_grad_norm, remove_unused_columns=False, report_to=[], save_strategy="no",
        disable_tqdm=True, optim="adamw_bnb_8bit" if run.optimizer == "adamw-8bit" else "adamw_torch",
    )  # fmt: skip
    trainer = StepTrainer(model, arguments, train_dataset=list(drawn), data_collator=collated)
    trainer.train()
    trainer.save_model()
    return trainer.losses, output


def collated(items: Sequence[Sequence[Sample]]) -> dict[str, torch.Tensor]:
    """An item of the data set is a batch: tokens, and labels of -100 where nothing is learnt, (batch, tokens)."""
    (batch,) = items
    tokens = [torch.tensor(sample.tokens) for sample in batch]
    labels = [
        torch.tensor([-100] * (len(sample.tokens) - sample.learnt) + [*sample.tokens[-sample.learnt :]])
        for sample in batch
    ]
    return {
        "input_ids": pad_sequence(tokens, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def test_the_learning_rate_is_that_of_transformers_but_a_step_further_while_it_rises() -> None:
    """Theirs makes a first step of rate 0, which learns nothing."""
    steps, warm_up = 20, 5
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warm_up, steps)
    (theirs,) = scheduler.lr_lambdas
    for step in range(steps):
        rate = learning_rate(step, steps, peak=1.0, warm_up=warm_up)
        assert math.isclose(rate, theirs(step + 1 if step < warm_up else step), abs_tol=1e-12)
