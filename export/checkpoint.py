"""The base model's folder in Hugging Face's format: read, checked and fingerprinted before any work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from tokenizers import Tokenizer

from dualtune_edge.export.safetensors_file import FLOATS, SafetensorError, StoredTensor, digest, stored_tensors
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.chat_template import CHAT_TEMPLATE
from dualtune_edge.toolkit.errors import CheckpointError
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.manifest import CacheShape

ARCHITECTURES: Final = (  # of those that onnxruntime-genai's builder knows, those whose exactness tests/export proves
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
TASK: Final = "text-generation"
_TIED: Final = "lm_head.weight"  # a tied checkpoint may leave it out
_SAYS_NOTHING: Final = ("_name_or_path", "transformers_version")  # config keys that change with who wrote the file


@dataclass(frozen=True)
class Checkpoint:
    """A base model that can be exported. `bos` and `eos` are token texts, "" where there is none."""

    folder: Path
    name: str
    architecture: str
    model_type: str
    task: str
    model_class: str  # of transformers, as Optimum resolves it
    context_length: int  # tokens
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

    """
    values = _json(folder / "config.json")
    architecture = _architecture(folder, values)
    config = _config(folder)
    _refuse_variants(folder, config)
    task, model_class = _resolve(architecture, config.model_type)
    tokenizer = _tokenizer(folder, config.vocab_size)
    words = _json(folder / "tokenizer_config.json")
    bos, eos = _special(words, "bos_token"), _special(words, "eos_token")
    tensors = stored_weights(folder)
    _compare(folder, tensors, _expected(config), tied=config.tie_word_embeddings)
    fingerprint = _fingerprint(folder, tensors, values)
    return Checkpoint(
        folder=folder,
        name=folder.resolve().name,
        architecture=architecture,
        model_type=config.model_type,
        task=task,
        model_class=model_class,
        context_length=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        bos=bos,
        eos=eos,
        end_of_turn=_end_of_turn(folder, config, tokenizer, eos),
        chat_template=_chat_template(folder, words),
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


def _json(path: Path) -> dict[str, Any]:
    try:
        value = strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            str(path), found="no such file", expected="a Hugging Face model folder", fix="Check the path of the base."
        ) from None
    except (OSError, strict_json.JsonError) as error:
        raise CheckpointError(
            str(path), found=str(error), expected="a JSON object", fix="Download or save the base again."
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(str(path), found="no JSON object", expected="one", fix="Download or save the base again.")
    return value


def _architecture(folder: Path, values: dict[str, Any]) -> str:
    found = values.get("architectures")
    if not (isinstance(found, list) and len(found) == 1 and found[0] in ARCHITECTURES):
        raise CheckpointError(
            f"{folder / 'config.json'}, architectures",
            found=repr(found),
            expected=f"one of {', '.join(ARCHITECTURES)}",
            fix="Choose a base of a supported architecture.",
        )
    return str(found[0])


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


def _refuse_variants(folder: Path, config: transformers.PretrainedConfig) -> None:
    """Refuse what the graph would compute otherwise than transformers."""
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    faults = {
        "quantization_config": (getattr(config, "quantization_config", None), "unquantized weights"),
        "rope_parameters.rope_type": (None if rope == "default" else rope, "'default'"),
        "sliding_window": (getattr(config, "sliding_window", None), "full attention in every layer"),
    }
    for field, (found, expected) in faults.items():
        if found is not None:
            raise CheckpointError(
                f"{folder / 'config.json'}, {field}",
                found=repr(found),
                expected=expected,
                fix="Choose another base; this one's mathematics is not supported.",
            )


def _resolve(architecture: str, model_type: str) -> tuple[str, str]:
    """(task, model class), as Optimum has them."""
    declared = getattr(transformers, architecture)
    task = TasksManager.infer_task_from_model(declared)
    resolved = TasksManager.get_model_class_for_task(task, model_type=model_type, model_class_name=architecture)
    return task, resolved.__name__


def _tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            str(path),
            found="no such file",
            expected="a fast tokenizer",
            fix="Save it: transformers.AutoTokenizer.from_pretrained(…).save_pretrained(…).",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception
        raise CheckpointError(
            str(path), found=str(error), expected="a tokenizer", fix="Download or save the base again."
        ) from None
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= highest < vocab_size:
        raise CheckpointError(
            str(path),
            found=f"token ids up to {highest}",
            expected=f"ids below the model's vocab_size {vocab_size}",
            fix="Use the tokenizer that the base was trained with.",
        )
    return tokenizer


def _special(words: dict[str, Any], key: str) -> str:
    """A special token's text: a string, or an object that holds it as `content`."""
    value = words.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _end_of_turn(
    folder: Path, config: transformers.PretrainedConfig, tokenizer: Tokenizer, eos: str
) -> tuple[int, ...]:
    """The tokenizer's `eos_token`, then what generation_config.json (or else config.json) names."""
    own = tokenizer.token_to_id(eos) if eos else None
    path = folder / "generation_config.json"
    named = (_json(path).get("eos_token_id") if path.is_file() else None) or config.eos_token_id
    ids = [own, *(named if isinstance(named, list) else [named])]
    found = tuple(dict.fromkeys(each for each in ids if each is not None))
    if not found or not all(isinstance(each, int) and 0 <= each < config.vocab_size for each in found):
        raise CheckpointError(
            str(path if path.is_file() else folder / "config.json"),
            found=f"end-of-sequence tokens {list(found)}",
            expected="at least one id of the vocabulary",
            fix="Name `eos_token` in tokenizer_config.json or `eos_token_id` in generation_config.json.",
        )
    return found


def _chat_template(folder: Path, words: dict[str, Any]) -> str | None:
    path = folder / CHAT_TEMPLATE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    value = words.get("chat_template")
    if isinstance(value, list):  # several, by name
        value = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}.get("default")
    return value if isinstance(value, str) else None


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
    places = _json(index).get("weight_map")
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
        raise CheckpointError(
            str(path),
            found=str(error),
            expected="a complete safetensors file",
            fix="Download or save the base again.",
        ) from None


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
    fingerprint, wrong = digest(tensors.values(), about)
    if wrong:
        raise CheckpointError(
            f"{folder}, {wrong[0]}",
            found="an infinity or NaN",
            expected="numbers",
            fix="Download or save the base again.",
        )
    return fingerprint
