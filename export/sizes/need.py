"""What one phase of an export takes, and the measured figures that several phases are estimated by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MB: Final = 1_000_000
# Resident memory, in bytes. Measured: see docs/performance.md.
LIBRARIES: Final = 520 * MB  # PyTorch, transformers, PEFT, onnxruntime, the builder
COMPARING: Final = 150 * MB  # besides: the model's code, tokenizers and grammars
# Seconds on one core of a machine that hashes 1.8 GB a second.
READ_SECONDS: Final = 1.2e-9  # to hash and inspect a byte
QUANTIZE_SECONDS: Final = 2.2e-8  # for a number
GPTQ_SECONDS: Final = 2.0e-7  # the same by GPTQ
OPEN_SECONDS: Final = 3.0e-9  # for a byte of a graph
ADAPTER_SECONDS: Final = 0.06  # for an adapter, whatever its size
# Multiplications and additions that a core does a second.
ORT_SPEED: Final = 9.0e10
TORCH_SPEED: Final = 5.0e10


@dataclass(frozen=True)
class Need:
    """What a phase takes: bytes that it leaves on the disk, more bytes there meanwhile, resident memory, and time."""

    disk: int = 0
    scratch: int = 0
    memory: int = 0
    seconds: float = 0.0
