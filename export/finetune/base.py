"""The base model, loaded once for any number of adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.base.models import load_model, meta_model
from dualtune_edge.export.estimate import gigabytes
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.work import room
from dualtune_edge.toolkit.errors import RoomError, SpecError

_WEIGHT_BYTES: Final = 4  # as it is read


@dataclass(frozen=True)
class Base:
    """A base model with frozen weights, on its device, and its checkpoint."""

    checkpoint: Checkpoint
    model: PreTrainedModel

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Iterator[Base]:
        """Check and load a Hugging Face folder; inside the block, adapters can be trained on it.

        Raises:
            CheckpointError: as for `read_checkpoint`.
            RoomError: its weights do not fit the memory.

        """
        checkpoint = read_checkpoint(folder)
        _refuse_without_room(checkpoint)
        yield cls(checkpoint, load_model(checkpoint).to(device=device, dtype=dtype))

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


def _refuse_without_room(checkpoint: Checkpoint) -> None:
    needed = _WEIGHT_BYTES * sum(weight.numel() for weight in meta_model(checkpoint).parameters())
    if needed > (free := room.free_memory()):
        raise RoomError(
            "memory",
            found=f"{gigabytes(free)} free",
            expected=f"{gigabytes(needed)} for the weights of {checkpoint.name} in float32, as they are read",
            fix="Close other programs, or take a smaller base or a larger machine.",
        )
