"""An adapter's tensors by the names that PEFT has for them; other spellings of these are recognized."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.content import require_content
from dualtune_edge.export.base.safetensors_file import SafetensorError, StoredTensor, stored_tensors
from dualtune_edge.export.base.weight_files import text_name, without_shells
from dualtune_edge.export.base.weights import same_values
from dualtune_edge.toolkit.errors import AdapterError

WEIGHTS: Final = "adapter_model.safetensors"
ROOT: Final = "base_model.model."  # PEFT writes it before a module's path
_SHORT: Final = ("layers.", "embed_tokens.", "norm.")  # of a base without a head, as for feature extraction
_OF_TEXT: Final = ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")
# A state dict of the whole model holds the adapter's name, which PEFT leaves out of its files.
_ADAPTER_NAME: Final = (
    (re.compile(r"(\.lora_[AB])\.[^.]+(?=\.(?:weight|bias)$)"), r"\1"),
    (re.compile(r"(\.lora_embedding_[AB])\.[^.]+$"), r"\1"),
    (re.compile(r"(\.lora_magnitude_vector)(?:\.[^.]+)?\.weight$"), r"\1"),
    (re.compile(r"\.modules_to_save(?:\.[^.]+)?(?=\.(?:weight|bias)$)"), ""),
)
_LAYER: Final = re.compile(r"layers\.\d+\.")


@dataclass(frozen=True)
class AdapterTensors:
    """What the file of an adapter holds. `warnings` say which names were read differently from how they stand."""

    stored: Mapping[str, StoredTensor]  # by PEFT's names
    warnings: tuple[str, ...]


def peft_name(name: str) -> str:
    """A tensor's name as PEFT's `save_pretrained` writes it.

    Read as well are the names of a compiled or distributed model, of a model without PEFT's own root, of a base
    without a head, of the text model inside a composite one, and those that hold the adapter's name.
    """
    path = without_shells(name)
    path = path.removeprefix(ROOT) if path.startswith(ROOT) else path.removeprefix("base_model.")
    path = text_name(path)
    if path.startswith(_SHORT):
        path = f"model.{path}"
    for pattern, replacement in _ADAPTER_NAME:
        path = pattern.sub(replacement, path)
    return ROOT + path


def read_tensors(folder: Path, checkpoint: Checkpoint) -> AdapterTensors:
    """The tensors of an adapter, none of which is loaded.

    Raises:
        AdapterError: no safetensors file, a damaged one, or two tensors for one place.

    """
    path = folder / WEIGHTS
    stored: dict[str, StoredTensor] = {}
    of_images = []
    for file_name, tensor in _stored(folder).items():
        name = peft_name(file_name)
        if checkpoint.composite and not name.removeprefix(ROOT).startswith(_OF_TEXT):
            of_images.append(file_name)
            continue
        if name in stored and same_values(stored[name], tensor):
            stored[name] = min(stored[name], tensor, key=lambda one: one.name != name)
            continue  # PEFT saves a trained table twice, with the embeddings and as a module
        if name in stored:
            raise AdapterError(
                f"{path}, {file_name}",
                found=f"a second tensor for {name}, beside {stored[name].name}",
                expected="every tensor once",
                fix="Save the adapter again with PEFT: model.save_pretrained(…).",
            )
        stored[name] = tensor
    _refuse_mixture(path, stored)
    return AdapterTensors(stored, tuple(_warnings(path, stored, of_images)))


def _stored(folder: Path) -> dict[str, StoredTensor]:
    path = folder / WEIGHTS
    require_content(path, AdapterError)
    try:
        return stored_tensors(path)
    except FileNotFoundError:
        pickled = (folder / "adapter_model.bin").is_file()
        raise AdapterError(
            str(folder),
            found="adapter_model.bin, which is a pickle" if pickled else f"no {WEIGHTS}",
            expected=f"weights as {WEIGHTS}",
            fix="Save it again with a present PEFT: model.save_pretrained(…).",
        ) from None
    except (OSError, SafetensorError) as error:
        raise incomplete(path, error) from None


def incomplete(path: Path, error: Exception) -> AdapterError:
    """The error for a file that cannot be read to its end."""
    return AdapterError(
        str(path), found=str(error), expected="a complete safetensors file", fix="Copy or save the adapter again."
    )


def _refuse_mixture(path: Path, stored: Mapping[str, StoredTensor]) -> None:
    """Refuse layers whose names begin differently: the file was put together from two adapters."""
    starts: dict[str, str] = {}
    for tensor in stored.values():
        layer = _LAYER.search(tensor.name)
        if layer:
            starts.setdefault(tensor.name[: layer.start()], tensor.name)
    if len(starts) > 1:
        one, other, *_ = starts.values()
        raise AdapterError(
            str(path),
            found=f"names of two spellings: {one} and {other}",
            expected="the tensors of one adapter, which all begin alike",
            fix="Save the adapter again with PEFT: model.save_pretrained(…).",
        )


def _warnings(path: Path, stored: Mapping[str, StoredTensor], of_images: list[str]) -> list[str]:
    found = []
    renamed = {tensor.name: name for name, tensor in stored.items() if tensor.name != name}
    if renamed:
        first, name = next(iter(renamed.items()))
        found.append(f"{path}: {len(renamed)} tensors have names that PEFT does not write: {first} is read as {name}")
    if of_images:
        found.append(f"{path}: {len(of_images)} tensors for images are left out, such as {of_images[0]}")
    return found
