"""The weights of a Hugging Face folder: where each lies, by the name that the text model's class has for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from dualtune_edge.export.base.content import require_content
from dualtune_edge.export.base.safetensors_file import SafetensorError, StoredTensor, stored_tensors
from dualtune_edge.export.base.tokenizer import read_json
from dualtune_edge.toolkit.errors import CheckpointError

# Parts of a name that torch.compile, DDP, FSDP and activation checkpointing put before a module's own.
_SHELLS: Final = frozenset(
    {"_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
# Where the text model stands in a composite one, as transformers 4 and 5 name it.
_TEXT: Final = re.compile(
    r"(?:model\.language_model|language_model\.model|model\.text_model)\.(?=layers|embed_tokens|norm)"
)
_TEXT_HEAD: Final = "language_model.lm_head"
_ROOT: Final = "model."
_OF_BODY: Final = ("layers.", "embed_tokens.", "norm.", "rotary_emb.")
_OF_TEXT: Final = ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")


def stored_weights(folder: Path) -> dict[str, StoredTensor]:
    """Every weight's place, from one file or from the shards that an index names, by the file's names.

    Raises:
        CheckpointError: none, or not all that the index names; or pickles.

    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    for path in (single, index):
        require_content(path, CheckpointError)
    if single.is_file():
        return _stored(single)
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        raise CheckpointError(
            str(folder),
            found=f"{pickled[0]}, which is a pickle" if pickled else "no model.safetensors",
            expected="weights as safetensors",
            fix="Save them so: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…).",
        )
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in files.values()
    ):
        raise CheckpointError(
            f"{index}, weight_map",
            found="no map of weight to file",
            expected="one, with plain file names",
            fix="Download or save the base again.",
        )
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(files.values())):
        shard = _stored(folder / file)
        tensors |= {name: tensor for name, tensor in shard.items() if files.get(name) == file}
    if missing := sorted(files.keys() - tensors.keys()):
        raise CheckpointError(
            str(index),
            found=f"no {missing[0]} in {files[missing[0]]}",
            expected="every weight in the shard that the index names",
            fix="Download or save the base again.",
        )
    return tensors


def without_shells(name: str) -> str:
    """A weight's name without what torch.compile and distributed training put into it."""
    return ".".join(part for part in name.split(".") if part not in _SHELLS)


def text_name(name: str) -> str:
    """A weight of a composite model by its name in the text model; of other weights the name itself."""
    if name.startswith(_TEXT_HEAD):
        return name.removeprefix("language_model.")
    return _TEXT.sub("model.", name, count=1) if _TEXT.match(name) else name


def weights_of_text(tensors: Mapping[str, StoredTensor], *, composite: bool) -> dict[str, StoredTensor]:
    """The text model's weights, by their names in its class.

    Args:
        tensors: by the names in the files.
        composite: the files hold a model with images, of which the text model is a part.

    Raises:
        CheckpointError: two weights of one name.

    """
    renamed: dict[str, StoredTensor] = {}
    root = "" if composite else _missing_root(tensors)
    for file_name, tensor in tensors.items():
        name = root + without_shells(file_name)
        if composite:
            name = text_name(name)
            if not name.startswith(_OF_TEXT):
                continue
        if name in renamed:
            raise CheckpointError(
                f"{tensor.path}, {file_name}",
                found=f"a second weight for {name}, beside {renamed[name].name}",
                expected="every weight once",
                fix="Save the base again, or remove one of the two.",
            )
        renamed[name] = tensor
    return renamed


def _missing_root(names: Iterable[str]) -> str:
    """What the names lack if the model was saved without its head's class, as transformers finds out, too."""
    return _ROOT if all(without_shells(name).startswith(_OF_BODY) for name in names) else ""


def spelling_warnings(
    folder: Path, files: Mapping[str, StoredTensor], stored: Mapping[str, StoredTensor], composite: str | None
) -> Iterator[str]:
    """What of the weights' names is read differently from how it stands in the files.

    Args:
        folder: the checkpoint's.
        files: the weights by their names in the files.
        stored: the weights by their names in the text model.
        composite: the class of the whole model; None: the files hold a text model.

    """
    if composite:
        rest = len(files) - len(stored)
        yield f"{folder}: the text model inside {composite} is exported, without its {rest} weights for images"
    if not composite and _missing_root(files):
        yield f"{folder}: the weights have no {_ROOT!r} before their names, as of a model without a head: it is added"
    shelled = [name for name in files if without_shells(name) != name]
    if shelled:
        yield (
            f"{folder}: {len(shelled)} weights have names that torch.compile or distributed training wrote, such as "
            f"{shelled[0]}: they are read as {without_shells(shelled[0])}"
        )


def _stored(path: Path) -> dict[str, StoredTensor]:
    require_content(path, CheckpointError)
    try:
        return stored_tensors(path)
    except (OSError, SafetensorError) as error:
        raise incomplete(path, error) from None


def incomplete(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that cannot be read to its end."""
    return CheckpointError(
        str(path), found=str(error), expected="complete safetensors files", fix="Download or save the base again."
    )
