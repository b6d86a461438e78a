"""The base model, loaded once for any number of adapters."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.base.models import load_model, meta_model
from dualtune_edge.export.estimate import gigabytes
from dualtune_edge.export.finetune.loading.low_bits import (
    BASE_OPTION,
    NF4_BYTES,
    bitsandbytes,
    is_4bit,
    load_4bit_model,
)
from dualtune_edge.export.finetune.loading.sharding import held_weights, load_sharded
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.work import room
from dualtune_edge.export.work.memory import no_holes
from dualtune_edge.toolkit.errors import RoomError, SpecError

_READ_BYTES: Final = 4  # a weight, as it is read


@dataclass(frozen=True)
class Precision:
    """How a base is held. `bits`: of its linear layers but the head, as NF4; None: they are in `dtype`, as the rest.

    `multiplied`: what layers in 4 bits are multiplied in; None: `dtype`.
    """

    dtype: torch.dtype = torch.float32
    bits: Literal[4] | None = None
    multiplied: torch.dtype | None = None

    @classmethod
    def of(cls, settings: FinetuneSettings) -> Precision:
        """What the settings say."""
        dtype = getattr(torch, settings.base_dtype)
        if settings.base_bits is None:
            return cls(dtype)
        return cls(dtype, settings.base_bits, torch.bfloat16 if settings.autocast else dtype)

    def __str__(self) -> str:
        return f"{'4 bits and ' if self.bits else ''}{str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Base:
    """A base model with frozen weights, on its device, and its checkpoint."""

    checkpoint: Checkpoint
    model: PreTrainedModel
    precision: Precision = Precision()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, folder: Path, device: torch.device | str = "cpu", precision: Precision | None = None, shards: int = 1
    ) -> Iterator[Base]:
        """Check and load a Hugging Face folder; inside the block, adapters can be trained on it.

        Args:
            folder: of the base.
            device: where it is computed.
            precision: how it is held; None: in float32.
            shards: the number of processes that hold it together.

        Raises:
            CheckpointError: as for `read_checkpoint`.
            MissingExtraError, SpecError: it is to be in 4 bits, and bitsandbytes is not there or cannot do it.
            SpecError: it is to be in 4 bits, and held by several processes.
            RoomError: its weights do not fit the memory.

        """
        precision = precision or Precision()
        if precision.bits:
            if shards > 1:
                raise _no_shards_of_4_bits()
            bitsandbytes(BASE_OPTION)
        checkpoint = read_checkpoint(folder)
        _refuse_without_room(checkpoint, precision, torch.device(device), shards)
        if precision.bits is None and shards == 1:
            yield cls(checkpoint, load_model(checkpoint, device, precision.dtype), precision)
            return
        # A layer is multiplied as a copy in full, which leaves a hole: all of them are as large as the base in full.
        with no_holes():
            if shards > 1:
                model = load_sharded(checkpoint, torch.device(device), precision.dtype, shards)
            else:
                model = load_4bit_model(checkpoint, device, precision.dtype, precision.multiplied or precision.dtype)
            yield cls(checkpoint, model, precision)

    def check_precision(self, settings: FinetuneSettings) -> None:
        """Refuse settings of a base that is held in another way: a run's record says how it was.

        Raises:
            SpecError: they differ.

        """
        if self.precision != (wanted := Precision.of(settings)):
            raise SpecError(
                "base",
                found=f"it loaded in {self.precision}",
                expected=f"{wanted}, by the settings",
                fix="Open it by Base.open(folder, device, Precision.of(settings)).",
            )

    @contextlib.contextmanager
    def adapted(self, settings: FinetuneSettings, invocation: tuple[int, ...] | None = None) -> Iterator[PeftModel]:
        """The model with a new adapter, which is removed at the end of the block.

        `invocation`: of an activated adapter.

        Raises:
            SpecError: a target names no linear module of the model.

        """
        self._check_targets(settings.targets)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            use_rslora=settings.rslora,
            target_modules=list(settings.targets),
            alora_invocation_tokens=None if invocation is None else list(invocation),
        )
        adapted = get_peft_model(self.model, config)
        config.base_model_name_or_path = self.checkpoint.name  # PEFT writes this machine's path
        if settings.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            yield adapted
        finally:
            self.model.gradient_checkpointing_disable()
            adapted.unload()
            vars(self.model).pop("peft_config", None)  # or PEFT warns of a second adapter

    def _check_targets(self, targets: tuple[str, ...]) -> None:
        head = self.model.get_output_embeddings()
        modules = self.model.named_modules()
        linear = [name for name, module in modules if isinstance(module, torch.nn.Linear) and module is not head]
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        for target in targets:
            if target not in known:
                raise SpecError(
                    "targets",
                    found=repr(target),
                    expected=f"linear modules of {self.checkpoint.name}: {', '.join(known)}",
                    fix="Name modules that the base has.",
                )


def weight_bytes(model: torch.nn.Module, precision: Precision) -> tuple[int, int]:
    """Bytes of a float model's weights once it is held so, and the most that one takes besides as it is read."""
    small = [module.weight for path, module in model.named_modules() if precision.bits and is_4bit(path, module)]
    of_small = sum(weight.numel() for weight in small)
    others = [weight for weight in model.parameters() if not any(weight is other for other in small)]
    held = precision.dtype.itemsize * sum(weight.numel() for weight in others) + NF4_BYTES * of_small
    changed = [*small, *(others if precision.dtype != torch.float32 else ())]
    return math.ceil(held), _READ_BYTES * max((weight.numel() for weight in changed), default=0)


def _no_shards_of_4_bits() -> SpecError:
    return SpecError(
        BASE_OPTION,
        found="it with ACCELERATE_USE_FSDP",
        expected="a base of float32 or bfloat16 that the processes share, or one in 4 bits in each of them",
        fix="Leave out one of the two.",
    )


def _refuse_without_room(checkpoint: Checkpoint, precision: Precision, device: torch.device, shards: int) -> None:
    model = meta_model(checkpoint)
    held, read = weight_bytes(model, precision)
    if shards > 1:
        held = precision.dtype.itemsize * held_weights(model, shards)
    on_gpu = device.type != "cpu"
    needed, free = (read if on_gpu else held + read), room.free_memory()
    if on_gpu and (there := free_on_gpu()) is not None and held > there:
        needed, free = held, there
    if needed > free:
        smaller = "--base-bits 4, " * (precision.bits is None) + "--base-dtype bfloat16, " * (
            precision.dtype == torch.float32
        )
        raise RoomError(
            "memory",
            found=f"{gigabytes(free)} free",
            expected=f"{gigabytes(needed)} for the weights of {checkpoint.name} in {precision}, as they are read",
            fix=f"Close other programs, or take {smaller}a smaller base or a larger machine.",
        )


def free_on_gpu() -> int | None:
    """Bytes that this process can take of its GPU; None: PyTorch does not count them."""
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return int(torch.accelerator.get_memory_info()[0] + torch.accelerator.memory_reserved())
    return None
