"""The base model's folder in Hugging Face's format: read, checked and fingerprinted before any work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from tokenizers import Tokenizer

from dualtune_edge.export.base.architectures import Architecture, exact_context, refuse_variants, supported
from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG, own_template
from dualtune_edge.export.base.safetensors_file import FLOATS, SafetensorError, StoredTensor, digest, stored_tensors
from dualtune_edge.export.base.tokenizer import end_of_turn, read_json, read_tokenizer, special
from dualtune_edge.toolkit.bundle.manifest import CacheShape
from dualtune_edge.toolkit.errors import CheckpointError
from dualtune_edge.toolkit.files import sha256_file

TASK: Final = "text-generation"
_TIED: Final = "lm_head.weight"  # a tied checkpoint may leave it out
_SAYS_NOTHING: Final = ("_name_or_path", "transformers_version")  # config keys that change with who wrote the file


@dataclass(frozen=True)
class Checkpoint:
    """A base model that can be exported. `bos` and `eos` are token texts, "" where there is none."""

    folder: Path
    name: str
    architecture: Architecture
    task: str
    model_class: str  # of transformers, as Optimum resolves it
    context_length: int  # tokens that the graph holds exactly
    vocab_size: int
    bos: str
    eos: str
    end_of_turn: tuple[int, ...]  # ids, the tokenizer's own first
    chat_template: str | None
    tokenizer: Tokenizer
    tokenizer_sha256: str  # of tokenizer.json
    fingerprint: str  # SHA-256 over the config and every weight's name, dtype, shape and bytes
    cache: CacheShape
    tied: bool  # one table for embedding and head


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a base model's folder; every weight's bytes are read once, none is kept.

    Raises:
        CheckpointError: a file is missing or damaged, the architecture is not supported, or a weight is missing, of
            another shape, quantized, infinite or NaN.
        TemplateError: the folder's chat template cannot be read.

    """
    where = str(folder / "config.json")
    values = read_json(folder / "config.json")
    architecture = supported(where, values.get("architectures"))
    config = _config(folder)
    refuse_variants(where, architecture, config)
    task, model_class = _resolve(architecture.name, config.model_type)
    tokenizer = read_tokenizer(folder, config.vocab_size)
    words = read_json(folder / TOKENIZER_CONFIG)
    template = own_template(folder, words)
    bos, eos = special(words, "bos_token"), special(words, "eos_token")
    tensors = stored_weights(folder)
    _compare(folder, tensors, _expected(config), tied=config.tie_word_embeddings)
    fingerprint = _fingerprint(folder, tensors, values)
    return Checkpoint(
        folder=folder,
        name=folder.resolve().name,
        architecture=architecture,
        task=task,
        model_class=model_class,
        context_length=exact_context(config),
        vocab_size=config.vocab_size,
        bos=bos,
        eos=eos,
        end_of_turn=end_of_turn(folder, config, tokenizer, eos),
        chat_template=template.source if template else None,
        tokenizer=tokenizer,
        tokenizer_sha256=sha256_file(folder / "tokenizer.json"),
        fingerprint=fingerprint,
        cache=CacheShape(
            layers=config.num_hidden_layers,
            heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        ),
        tied=config.tie_word_embeddings,
    )


def _config(folder: Path) -> transformers.PretrainedConfig:
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - transformers raises what the values happen to break
        raise CheckpointError(
            str(folder / "config.json"),
            found=f"{type(error).__name__}: {error}",
            expected="a config that transformers reads",
            fix="Download or save the base again.",
        ) from None


def _resolve(architecture: str, model_type: str) -> tuple[str, str]:
    """(task, model class), as Optimum has them."""
    declared = getattr(transformers, architecture)
    task = TasksManager.infer_task_from_model(declared)
    resolved = TasksManager.get_model_class_for_task(task, model_type=model_type, model_class_name=architecture)
    return task, resolved.__name__


def stored_weights(folder: Path) -> dict[str, StoredTensor]:
    """Every weight's place, from one file or from the shards that an index names.

    Raises:
        CheckpointError: none, or not all that the index names; or pickles.

    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
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
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in places.values()
    ):
        raise CheckpointError(
            f"{index}, weight_map",
            found="no map of weight to file",
            expected="one, with plain file names",
            fix="Download or save the base again.",
        )
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(places.values())):
        tensors |= {name: each for name, each in _stored(folder / file).items() if places.get(name) == file}
    if missing := sorted(places.keys() - tensors.keys()):
        raise CheckpointError(
            str(index),
            found=f"no {missing[0]} in {places[missing[0]]}",
            expected="every weight in the shard that the index names",
            fix="Download or save the base again.",
        )
    return tensors


def _stored(path: Path) -> dict[str, StoredTensor]:
    try:
        return stored_tensors(path)
    except (OSError, SafetensorError) as error:
        raise _incomplete(path, error) from None


def _incomplete(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        str(path), found=str(error), expected="complete safetensors files", fix="Download or save the base again."
    )


def _expected(config: transformers.PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that the architecture has."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _compare(
    folder: Path, tensors: dict[str, StoredTensor], expected: dict[str, tuple[int, ...]], *, tied: bool
) -> None:
    """Transformers only warns of a missing weight, and draws it."""
    optional = {_TIED} if tied else set()
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None and name not in optional:
            raise CheckpointError(
                str(folder), found=f"no weight {name}", expected="every weight", fix="Download or save the base again."
            )
        if tensor and (tensor.shape != shape or tensor.dtype not in FLOATS):
            raise CheckpointError(
                f"{tensor.path}, {name}",
                found=f"{tensor.dtype} {list(tensor.shape)}",
                expected=f"{'/'.join(FLOATS)} {list(shape)}",
                fix="Check that config.json and the weights are of one model.",
            )
    # Old Llama folders keep the rotary frequencies, which follow from the config.
    if extra := sorted(name for name in tensors.keys() - expected.keys() if not name.endswith("rotary_emb.inv_freq")):
        raise CheckpointError(
            f"{tensors[extra[0]].path}, {extra[0]}",
            found="a weight that the architecture does not have",
            expected="only its own",
            fix="Check that config.json and the weights are of one model.",
        )


def _fingerprint(folder: Path, tensors: dict[str, StoredTensor], values: dict[str, Any]) -> str:
    about = {key: value for key, value in values.items() if key not in _SAYS_NOTHING}
    try:
        fingerprint, wrong = digest(tensors.values(), about)
    except (OSError, SafetensorError) as error:
        raise _incomplete(folder, error) from None
    if wrong:
        raise CheckpointError(
            f"{folder}, {wrong[0]}",
            found="an infinity or NaN",
            expected="numbers",
            fix="Download or save the base again.",
        )
    return fingerprint
