"""The base model's folder in Hugging Face's format: read, checked and fingerprinted before any work begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from tokenizers import Tokenizer

from dualtune_edge.export.base.architectures import Architecture
from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG, read_template
from dualtune_edge.export.base.model_config import exact_context, read_model_config
from dualtune_edge.export.base.safetensors_file import FLOATS, SafetensorError, StoredTensor, digest
from dualtune_edge.export.base.tokenizer import end_of_turn, read_json, read_tokenizer, special_token
from dualtune_edge.export.base.weight_files import incomplete, spelling_warnings, stored_weights, weights_of_text
from dualtune_edge.export.base.weights import TABLES, StoredWeights, same_values
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.errors import CheckpointError
from dualtune_edge.toolkit.files import sha256_file

TASK: Final = "text-generation"
_UNRELATED: Final = ("_name_or_path", "transformers_version")  # config keys that change with who wrote the file
_ROTARY: Final = "rotary_emb.inv_freq"  # in old Llama folders; the config says the same


@dataclass(frozen=True)
class Checkpoint:
    """A base model that can be exported. `bos` and `eos` are token texts, "" where there is none."""

    folder: Path
    name: str
    architecture: Architecture
    task: str
    model_class: str  # of transformers, as Optimum resolves it
    config: transformers.PretrainedConfig = field(repr=False)  # whoever changes it takes a copy
    stored: Mapping[str, StoredTensor] = field(repr=False)  # every weight, by its name in transformers
    context_length: int  # tokens that the graph holds exactly
    vocab_size: int
    bos: str
    eos: str
    end_of_turn: tuple[int, ...]  # ids, the tokenizer's own first
    chat_template: str | None
    tokenizer: Tokenizer = field(repr=False)
    tokenizer_sha256: str  # of tokenizer.json
    fingerprint: str  # SHA-256 over the config and every weight's name, dtype, shape and bytes
    cache: CacheShape
    tied: bool  # one table for embedding and head
    tokenizer_folder: Path  # of tokenizer.json and tokenizer_config.json
    composite: str | None = None  # the class of the model with images that the text model is part of
    warnings: tuple[str, ...] = ()  # what the folder says and the export reads differently
    added_tokens: Mapping[str, int] = field(default_factory=dict, repr=False)  # by adapters, to the base's tokenizer

    @property
    def weights(self) -> StoredWeights:
        """Its weights, read from the files."""
        return StoredWeights(self.stored, tied=self.tied, vocabulary=self.vocab_size)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a base model's folder; every weight's bytes are read once, none is kept.

    Raises:
        CheckpointError: a file is missing or damaged, the architecture is not supported, or a weight is missing, of
            another shape, quantized, infinite or NaN.
        TemplateError: the folder's chat template cannot be read.

    """
    model = read_model_config(folder)
    config, architecture = model.config, model.architecture
    task, model_class = _resolve(architecture.name, config.model_type)
    tokenizer = read_tokenizer(folder, config.vocab_size)
    tokenizer_config = read_json(folder / TOKENIZER_CONFIG)
    template = read_template(folder, tokenizer_config)
    eos = special_token(tokenizer_config, "eos_token")
    files = stored_weights(folder)
    stored = weights_of_text(files, composite=model.composite is not None)
    _compare(folder, stored, _shapes(config), tied=config.tie_word_embeddings)
    fingerprint = _fingerprint(folder, stored, model.values)
    warnings = [*spelling_warnings(folder, files, stored, model.composite)]
    if config.tie_word_embeddings and not _tables_agree(stored):
        config.tie_word_embeddings = False
        warnings.append(
            f"{folder / 'config.json'} says tie_word_embeddings, and the files hold a head that differs from the "
            "embedding: the two are not tied, as transformers loads them"
        )
    return Checkpoint(
        folder=folder,
        name=folder.resolve().name,
        architecture=architecture,
        task=task,
        model_class=model_class,
        config=config,
        stored=_one_table(stored) if config.tie_word_embeddings else stored,
        context_length=exact_context(config),
        vocab_size=config.vocab_size,
        bos=special_token(tokenizer_config, "bos_token"),
        eos=eos,
        end_of_turn=end_of_turn(folder, config, tokenizer, eos),
        chat_template=template.source if template else None,
        tokenizer=tokenizer,
        tokenizer_sha256=sha256_file(folder / "tokenizer.json"),
        fingerprint=fingerprint,
        cache=CacheShape(layers=config.num_hidden_layers, heads=config.num_key_value_heads, head_dim=model.head_dim),
        tied=config.tie_word_embeddings,
        tokenizer_folder=folder,
        composite=model.composite,
        warnings=tuple(warnings),
    )


def _resolve(architecture: str, model_type: str) -> tuple[str, str]:
    """(task, model class), as Optimum has them."""
    declared = getattr(transformers, architecture)
    task = TasksManager.infer_task_from_model(declared)
    resolved = TasksManager.get_model_class_for_task(task, model_type=model_type, model_class_name=architecture)
    return task, resolved.__name__


def _shapes(config: transformers.PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that the architecture has."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _compare(
    folder: Path, stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], *, tied: bool
) -> None:
    """Refuse a weight too many or too few: transformers only warns, and draws what is missing."""
    optional = set(TABLES) if tied and stored.keys() & set(TABLES) else set()
    for name, shape in shapes.items():
        tensor = stored.get(name)
        if tensor is None and name not in optional:
            raise CheckpointError(
                str(folder), found=f"no weight {name}", expected="every weight", fix="Download or save the base again."
            )
        if tensor and (tensor.shape != shape or tensor.dtype not in FLOATS):
            raise CheckpointError(
                f"{tensor.path}, {tensor.name}",
                found=f"{tensor.dtype} {list(tensor.shape)}",
                expected=f"{'/'.join(FLOATS)} {list(shape)}",
                fix="Check that config.json and the weights are of one model.",
            )
    if extra := sorted(name for name in stored.keys() - shapes.keys() if not name.endswith(_ROTARY)):
        raise CheckpointError(
            f"{stored[extra[0]].path}, {stored[extra[0]].name}",
            found="a weight that the architecture does not have",
            expected="only its own",
            fix="Check that config.json and the weights are of one model.",
        )


def _tables_agree(stored: Mapping[str, StoredTensor]) -> bool:
    """Whether embedding and head can be one table: transformers 5.23 keeps two that differ (`tie_weights`)."""
    embedding, head = (stored.get(name) for name in TABLES)
    return embedding is None or head is None or same_values(embedding, head)


def _one_table(stored: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """The weights with one table under the embedding's name; the files may hold it as the head alone, or twice."""
    embedding, head = TABLES
    if embedding in stored:
        return {name: tensor for name, tensor in stored.items() if name != head}
    return {embedding if name == head else name: tensor for name, tensor in stored.items()}


def _fingerprint(folder: Path, tensors: Mapping[str, StoredTensor], values: Mapping[str, Any]) -> str:
    about = {key: value for key, value in values.items() if key not in _UNRELATED}
    try:
        fingerprint, not_finite = digest(tensors.values(), about)
    except (OSError, SafetensorError) as error:
        raise incomplete(folder, error) from None
    if not_finite:
        raise CheckpointError(
            f"{folder}, {not_finite[0]}",
            found="an infinity or NaN",
            expected="numbers",
            fix="Download or save the base again.",
        )
    return fingerprint
