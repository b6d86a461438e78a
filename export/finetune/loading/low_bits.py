"""What bitsandbytes brings: a base in 4 bits (NF4, QLoRA, arXiv 2305.14314), and AdamW with its moments in 8 bits.

Nothing imports it unless one of the two is asked for; PEFT itself does where it is installed.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Final

import torch
from transformers import PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import fill, unfilled_model
from dualtune_edge.export.base.modules import HEAD
from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.errors import SpecError

PACKAGE: Final = "bitsandbytes"
BASE_OPTION: Final = "--base-bits 4"
OPTIMIZER_OPTION: Final = "--optimizer adamw-8bit"
NF4_BYTES: Final = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: its code, the scale of 64, and the scale of 256 scales
_SMALLEST: Final = 4096  # weights of a tensor whose moments AdamW8bit holds in 8 bits; of smaller ones in float32
_BLOCK: Final = 256  # moments that have a scale in common


def bitsandbytes(option: str) -> ModuleType:
    """The package, for the option that needs it.

    Raises:
        MissingExtraError: it is not installed.

    """
    try:
        return importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise extras.missing(error, option) or error from None


def load_4bit_model(
    checkpoint: Checkpoint, device: torch.device | str, dtype: torch.dtype, multiplied: torch.dtype
) -> PreTrainedModel:
    """The model on the device, its linear layers but the head in NF4 with scales in 8 bits, as QLoRA has them.

    Args:
        checkpoint: of the base.
        device: where the model is to be.
        dtype: of what is not in 4 bits.
        multiplied: what 4-bit weights are multiplied in.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        SpecError: it cannot compute on the device.

    """
    layers = bitsandbytes(BASE_OPTION).nn
    with _refused(BASE_OPTION, device):
        _try_4_bits(layers, device, multiplied)
    model = unfilled_model(checkpoint)
    for path, module in list(model.named_modules()):
        if is_4bit(path, module):
            model.set_submodule(path, _unfilled_4bit(layers, module, multiplied))

    def held(module: torch.nn.Module, leaf: str, value: torch.Tensor) -> torch.nn.Parameter:
        if leaf == "weight" and isinstance(module, layers.Linear4bit):
            codes: torch.nn.Parameter = _quantized(layers, value, device, module)
            return codes
        return torch.nn.Parameter(value.to(device=device, dtype=dtype), requires_grad=False)

    model = fill(model, checkpoint, held).to(device=device)
    model.is_loaded_in_4bit = True  # PEFT asks for it
    return model


def is_4bit(path: str, module: torch.nn.Module) -> bool:
    """Whether a module of the float model is held in 4 bits."""
    return type(module) is torch.nn.Linear and path != HEAD


def require_adamw_8bit(device: torch.device) -> None:
    """Make a small step, so that a device that cannot is refused before anything is read.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        SpecError: it cannot compute on the device.

    """
    make = bitsandbytes(OPTIMIZER_OPTION).optim.AdamW8bit
    with _refused(OPTIMIZER_OPTION, device):
        weight = torch.nn.Parameter(torch.ones(_SMALLEST, device=device))
        weight.grad = torch.ones_like(weight)
        make([weight], min_8bit_size=_SMALLEST).step()


def adamw_8bit(weights: Iterable[torch.nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW whose moments are codes of 8 bits, with a scale for each block of 256."""
    make = bitsandbytes(OPTIMIZER_OPTION).optim.AdamW8bit
    optimizer: torch.optim.Optimizer = make(weights, weight_decay=weight_decay, min_8bit_size=_SMALLEST)
    return optimizer


def moments_bytes(weight: torch.Tensor, *, in_8_bits: bool) -> int:
    """Bytes of a weight's two moments."""
    numbers = weight.numel()
    if not in_8_bits or numbers < _SMALLEST:
        return 8 * numbers
    return 2 * (numbers + 4 * -(-numbers // _BLOCK))


def _unfilled_4bit(layers: Any, module: torch.nn.Linear, multiplied: torch.dtype) -> Any:
    with torch.device("meta"):
        layer = layers.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=multiplied,
            quant_type="nf4",
        )
    # Or a measurement on a CPU with AVX512-BF16 packs the weights for its kernel, which knows no gradient.
    layer.support_avx512bf16_for_cpu = False
    return layer


def _quantized(layers: Any, value: torch.Tensor, device: torch.device | str, module: Any) -> Any:
    return layers.Params4bit(value, requires_grad=False, quant_type="nf4", module=module).to(device)


def _try_4_bits(layers: Any, device: torch.device | str, multiplied: torch.dtype) -> None:
    """Quantize a small layer, multiply by it, and go back."""
    layer = _unfilled_4bit(layers, torch.nn.Linear(64, 64, bias=False, device="meta"), multiplied)
    layer.weight = _quantized(layers, torch.ones(64, 64), device, layer)
    given = torch.ones(1, 64, device=device, requires_grad=True)
    torch.autograd.backward(layer(given).sum())


@contextlib.contextmanager
def _refused(option: str, device: torch.device | str) -> Iterator[None]:
    """Say in words that the package has no kernels for the device: it finds out when the first one is called."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SpecError(
            option,
            found=f"bitsandbytes without what this needs on {torch.device(device).type}: {reason}",
            expected="a build of bitsandbytes with kernels for this PyTorch and this device",
            fix="Leave the option out; `python -m bitsandbytes` says what the package lacks.",
        ) from error
