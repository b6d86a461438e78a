"""The text model inside a model with images: the same logits as the whole one gives for text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from dualtune_edge_kit.random_checkpoint import write_checkpoint
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.architectures import COMPOSITES
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.base.models import load_model
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import AdapterError, CheckpointError

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 288,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 256,
    "eos_token_id": 258,
}
IMAGES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
# Class → what its text model and its images' model are besides.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Gemma3": ({"head_dim": 16, "sliding_window": 16}, {}),
    "Idefics3": ({"model_type": "llama"}, {}),
    "InternVL": ({"model_type": "qwen2"}, {"image_size": [28, 28], "patch_size": [14, 14]}),
    "Llava": ({"model_type": "llama"}, {"model_type": "clip_vision_model"}),
    "LlavaNext": ({"model_type": "mistral", "sliding_window": None}, {"model_type": "clip_vision_model"}),
    "LlavaOnevision": ({"model_type": "qwen2"}, {"model_type": "siglip_vision_model"}),
    "Mistral3": ({"model_type": "mistral", "sliding_window": None, "head_dim": 16}, {"model_type": "pixtral"}),
    "Qwen2VL": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
        {"depth": 1, "num_heads": 2, "embed_dim": 32, "hidden_size": 64},
    ),
    "Qwen2_5_VL": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
        {"depth": 1, "num_heads": 2, "out_hidden_size": 64},
    ),
    "Qwen3VL": (
        {
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        {"depth": 1, "num_heads": 2, "out_hidden_size": 64, "deepstack_visual_indexes": [0]},
    ),
    "SmolVLM": ({"model_type": "llama"}, {}),
}


def whole_model(name: str, *, tied: bool = True) -> Any:
    """The model with images, every weight drawn."""
    text, images = MODELS[name]
    kind = getattr(transformers, f"{name}Config")
    config = kind(text_config=TEXT | text, vision_config=IMAGES | images, tie_word_embeddings=tied)
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            size = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.normal_(float(parameter.dim() == 1), size)
    return model.eval()


def write(model: Any, folder: Path) -> Path:
    """Its folder, as transformers saves it, with the tokenizer of the random checkpoints."""
    from dualtune_edge_kit.random_checkpoint import SHAPES

    write_checkpoint(folder, SHAPES["tiny"])
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink(missing_ok=True)
    model.save_pretrained(folder)
    return folder


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(input_ids=torch.tensor([TOKENS])).logits[0, -1].numpy()
    return found


def rename(folder: Path, renames: dict[str, str]) -> None:
    """Write the weights as older files name them."""
    path = folder / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        start = next((start for start in renames if name.startswith(start)), "")
        tensors[renames.get(start, "") + name.removeprefix(start)] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture
def gemma(tmp_path: Path) -> Checkpoint:
    return read_checkpoint(write(whole_model("Gemma3"), tmp_path / "base"))


def test_every_composite_is_tried() -> None:
    assert {f"{name}ForConditionalGeneration" for name in MODELS} == set(COMPOSITES)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_text_alone_gives_the_whole_models_logits(name: str, tmp_path: Path, *, tied: bool) -> None:
    model = whole_model(name, tied=tied)
    checkpoint = read_checkpoint(write(model, tmp_path / "base"))
    assert checkpoint.tied == tied
    assert f"{name}ForConditionalGeneration" in checkpoint.warnings[0]
    np.testing.assert_allclose(logits(load_model(checkpoint)), logits(model), atol=1e-5)


@pytest.mark.parametrize("name", ["Gemma3", "Mistral3", "Qwen2_5_VL", "Qwen3VL"])
def test_its_graph_does_too(name: str, tmp_path: Path) -> None:
    model = whole_model(name, tied=False)
    checkpoint = read_checkpoint(write(model, tmp_path / "base"))
    build_graph(checkpoint, tmp_path / "graph", Quantization(bits=32))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tmp_path / "graph" / "model.onnx", options)
    ids = np.array([TOKENS], dtype=np.int64)
    empty = np.zeros((1, checkpoint.cache.heads, 0, checkpoint.cache.head_dim), dtype=np.float32)
    caches = {value.name: empty for value in session.get_inputs() if value.name.startswith("past")}
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)} | caches
    np.testing.assert_allclose(session.run(["logits"], feed)[0][0, -1], logits(model), atol=1e-4)


OLDER = {  # as transformers 4 and the hub's files have them
    "Gemma3": {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""},
    "Qwen2_5_VL": {"model.language_model.": "model.", "model.visual.": "visual."},
}


@pytest.mark.parametrize("name", OLDER)
def test_older_names_of_the_weights_are_read(name: str, tmp_path: Path) -> None:
    model = whole_model(name, tied=False)
    folder = write(model, tmp_path / "base")
    rename(folder, OLDER[name])
    np.testing.assert_allclose(logits(load_model(read_checkpoint(folder))), logits(model), atol=1e-5)


def test_a_text_model_that_is_in_no_row_is_refused_by_its_type(tmp_path: Path) -> None:
    folder = write(whole_model("Mistral3"), tmp_path / "base")
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["text_config"] = {"model_type": "gpt_oss", "num_hidden_layers": 1}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"text_config\.model_type: found 'gpt_oss' in a Mistral3"):
        read_checkpoint(folder)


def _adapter(folder: Path, model: Any, **fields: Any) -> Any:
    """An adapter that was trained on the whole model; returns the adapted model."""
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **fields)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    config.base_model_name_or_path = "base"
    config.save_pretrained(folder)
    save_file(get_peft_model_state_dict(adapted), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return adapted.eval()


@pytest.mark.parametrize("mode", ["external", "merged"])
def test_an_adapter_of_the_whole_model_is_one_of_the_text_model(mode: Any, tmp_path: Path) -> None:
    model = whole_model("Gemma3")
    checkpoint = read_checkpoint(write(model, tmp_path / "base"))
    adapted = _adapter(tmp_path / "adapter", model, target_modules=["q_proj", "up_proj"])
    weights = read_adapter(tmp_path / "adapter", checkpoint, mode)
    assert {path.split(".")[2] for path in weights.pairs} == {"0", "1"}
    assert any("for images are left out" in warning for warning in weights.warnings)
    with TorchEngine(checkpoint, {"a": tmp_path / "adapter"}) as engine:
        engine.use("a")
        np.testing.assert_allclose(engine.forward(TOKENS), logits(adapted), atol=1e-5)


def test_an_adapter_on_images_alone_is_refused(tmp_path: Path) -> None:
    model = whole_model("Gemma3")
    checkpoint = read_checkpoint(write(model, tmp_path / "base"))
    _adapter(tmp_path / "adapter", model, target_modules=r".*vision_tower.*q_proj")
    with pytest.raises(AdapterError, match=r"target_modules|vision_tower"):
        read_adapter(tmp_path / "adapter", checkpoint, "external")


def test_peft_loads_the_same_adapter_on_the_whole_model(tmp_path: Path) -> None:
    """The folder that the tests above read is one that PEFT reads."""
    model = whole_model("Gemma3")
    expected = logits(_adapter(tmp_path / "adapter", model, target_modules=["q_proj", "up_proj"]))
    loaded = PeftModel.from_pretrained(whole_model("Gemma3"), tmp_path / "adapter")
    np.testing.assert_allclose(logits(loaded.eval()), expected, atol=1e-5)
