"""An adapter folded into the base in fp32: weights that a graph is built of."""

from __future__ import annotations

import contextlib
import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from transformers import PreTrainedModel

from dualtune_edge.export.adapter.attach import attach
from dualtune_edge.export.adapter.merged_weights import MergedWeights
from dualtune_edge.export.adapter.read import AdapterWeights
from dualtune_edge.export.base import modules
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import load_model
from dualtune_edge.export.base.weight_files import stored_weights
from dualtune_edge.export.base.weights import StoredWeights, Weights
from dualtune_edge.export.work.quiet import captured
from dualtune_edge.toolkit.errors import AdapterError

_TOLERANCE: Final = 1e-5  # of a weight against W + scale · B A, which PEFT may sum in another order
_TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json")
_GENERATION: Final = "generation_config.json"


@contextlib.contextmanager
def merged_weights(checkpoint: Checkpoint, adapter: AdapterWeights, *, scratch: Path) -> Iterator[Weights]:
    """The base's weights with the adapter folded in.

    Plain LoRA is folded in as a weight is read. Other adapters PEFT merges in memory, and the outcome lies in a folder
    that lives as long as the context: that takes some four times the base's size in bfloat16 of memory, and twice of
    disk.

    Args:
        checkpoint: the base.
        adapter: read for the merged mode.
        scratch: an existing folder, in which that other folder is made.

    Raises:
        AdapterError: PEFT cannot fold it, or folds it differently than expected.

    """
    if adapter.plain:
        yield MergedWeights(checkpoint, adapter)
        return
    with tempfile.TemporaryDirectory(prefix=".merge.", dir=scratch) as folder:
        weights = merge(checkpoint, adapter, Path(folder) / "weights")
        gc.collect()  # PEFT's model is a cycle
        yield weights


def merge(checkpoint: Checkpoint, adapter: AdapterWeights, out: Path) -> StoredWeights:
    """Write the base with the adapter folded in by PEFT, and return its weights.

    Args:
        checkpoint: the base.
        adapter: read for the merged mode.
        out: a new folder: config, fp32 weights as safetensors, the tokenizer's files.

    Raises:
        AdapterError: PEFT cannot fold it, or the outcome is not W + scale · B A, or another weight changed.

    """
    with captured():
        model = load_model(checkpoint)
        if checkpoint.tied and not adapter.trains_tied_rows:
            _untie(model)
        merged, touched, plain = _fold(model, adapter, checkpoint)
    with torch.no_grad():
        _verify(checkpoint, adapter if plain else None, merged, touched)
        if checkpoint.tied and torch.equal(merged.lm_head.weight, merged.model.embed_tokens.weight):
            merged.config.tie_word_embeddings = True
            merged.tie_weights()
    with captured():
        merged.save_pretrained(out)
    beside = [checkpoint.tokenizer_folder / name for name in _TOKENIZER] + [checkpoint.folder / _GENERATION]
    for path in beside:
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    return StoredWeights(stored_weights(out), tied=bool(merged.config.tie_word_embeddings), merged=True)


def _untie(model: PreTrainedModel) -> None:
    """Give the head its own table: PEFT would fold a change of one of the two into both."""
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)


def _fold(
    model: PreTrainedModel, adapter: AdapterWeights, checkpoint: Checkpoint
) -> tuple[PreTrainedModel, frozenset[str], bool]:
    """(merged model, names of the weights that it may have changed, whether it is plain LoRA)."""
    try:
        wrapped = attach(model, adapter.folder, checkpoint)
        config = wrapped.peft_config["default"]
        touched = frozenset(_touched(wrapped, config.bias)) | adapter.tables
        return wrapped.merge_and_unload(safe_merge=True), touched, not config.use_dora
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise AdapterError(
            str(adapter.folder),
            found=f"{type(error).__name__}: {error}",
            expected="an adapter that PEFT can fold into this base",
            fix="Train an adapter of plain LoRA.",
        ) from None


def _touched(wrapped: PeftModel, bias: str) -> Iterator[str]:
    """Names of the base's weights that the adapter may change; `bias`: the config's field of biases trained along."""
    for path, module in wrapped.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            yield f"{path}.{getattr(module, 'parameter_name', 'weight')}"
            if bias == "lora_only" or any(module.lora_bias.values()):
                yield f"{path}.bias"
        elif isinstance(module, ModulesToSaveWrapper):
            yield from (f"{path}.{name}" for name, _ in module.original_module.named_parameters())
        elif isinstance(module, TrainableTokensWrapper):
            yield f"{path}.weight"
        elif bias == "all" and getattr(module, "bias", None) is not None:
            yield f"{path.removesuffix('.base_layer')}.bias"


def _verify(
    checkpoint: Checkpoint, adapter: AdapterWeights | None, merged: PreTrainedModel, touched: frozenset[str]
) -> None:
    """Compare with the base's files, one weight at a time; of `adapter` (None: not plain LoRA) the products too."""
    after = merged.state_dict()
    for name in checkpoint.stored.keys() & after.keys():  # without old rotary frequencies
        base = checkpoint.weights.read(name).clone()
        replaced = name in (adapter.tables if adapter else ())
        pair = adapter.pairs.get(name.removesuffix(".weight")) if adapter and not replaced else None
        if pair:
            a, b = torch.from_numpy(pair.a), torch.from_numpy(pair.b)
            one, other = (a.T, b.T) if name == f"{modules.EMBEDDING}.weight" else (b, a)  # a table's rows are inputs
            off = base.sub_(after[name]).addmm_(one, other, alpha=pair.scale)
            right = bool(off.abs_().max() <= _TOLERANCE * max(1.0, float(after[name].abs().max())))  # NaN is not right
        else:
            right = name in touched or torch.equal(after[name], base)
        if not right:
            raise AdapterError(
                f"{checkpoint.folder}, {name}",
                found="another weight after merging",
                expected="W + scale · B A" if pair else "the base's, which the adapter does not touch",
                fix="Report this with the versions of peft and transformers.",
            )
