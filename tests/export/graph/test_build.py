"""The builder's graph: reproducible, silent, with a genai_config.json of our own."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import onnx
import onnxruntime_genai
import pytest
from pydantic import ValidationError

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.genai_config import write_genai_config
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import GraphError

ALGORITHMS = [name for name in get_args(Quantization.model_fields["algorithm"].annotation) if name != "gptq"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_quantization_comes_out_as_asked_for(bits: Any, algorithm: Any, tiny: Checkpoint, tmp_path: Path) -> None:
    build_graph(tiny, tmp_path / "graph", Quantization(bits=bits, algorithm=algorithm, accuracy_level=0))


def test_gptq_is_not_replaced_by_rounding_to_nearest(tiny: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="moments"):
        build_graph(tiny, tmp_path / "graph", Quantization(algorithm="gptq"))
    with pytest.raises(ValidationError, match="bits: 4"):
        Quantization(bits=8, algorithm="gptq")


def test_two_builds_two_folders_same_bytes(tiny: Checkpoint, int4_graph: Any, tmp_path: Path) -> None:
    build_graph(tiny, tmp_path / "again", Quantization())
    add_slots(tmp_path / "again")
    names = sorted(path.name for path in int4_graph.folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (int4_graph.folder / name).read_bytes(), name


def test_no_repository_around_the_packages_is_named(int4_graph: Any) -> None:
    model = onnx.load(int4_graph.folder / "model.onnx", load_external_data=False)
    assert model.producer_version == metadata.version("onnxruntime-genai")


def test_nothing_is_printed(tiny: Checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build_graph(tiny, tmp_path / "graph", Quantization())
    out, _ = capfd.readouterr()
    assert not out


def test_the_tokenizer_is_the_checkpoints_byte_for_byte(tiny: Checkpoint, int4_graph: Any) -> None:
    assert (int4_graph.folder / "tokenizer.json").read_bytes() == (tiny.folder / "tokenizer.json").read_bytes()
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(int4_graph.folder)))
    text = "héllo <|im_end|>\n"
    assert list(tokenizer.encode(text)) == tiny.tokenizer.encode(text).ids


def test_genai_config_says_what_we_say(tiny: Checkpoint, int4_graph: Any) -> None:
    config = json.loads((int4_graph.folder / "genai_config.json").read_text(encoding="utf-8"))
    assert set(config) == {"model", "search"}
    assert config["model"]["context_length"] == config["search"]["max_length"] == tiny.context_length
    assert config["model"]["eos_token_id"] == list(tiny.end_of_turn)
    assert config["search"]["do_sample"] is False
    assert config["model"]["decoder"]["session_options"]["provider_options"] == []


@pytest.mark.parametrize(
    ("where", "key"), [("model", "vision"), ("decoder", "custom_ops_library"), ("decoder", "sliding_window")]
)
def test_an_unknown_key_of_the_builders_is_refused(
    where: str, key: str, tiny: Checkpoint, int4_graph: Any, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(int4_graph.folder, tmp_path / "copy"))
    path = copy / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    (config["model"] if where == "model" else config["model"]["decoder"])[key] = {}
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(GraphError, match=key):
        write_genai_config(tiny, copy)


def test_a_builder_that_fails_is_one_error(tiny: Checkpoint, tmp_path: Path) -> None:
    gone = read_checkpoint(shutil.copytree(tiny.folder, tmp_path / "base"))
    weights = gone.weights
    (gone.folder / "model.safetensors").unlink()
    with pytest.raises(GraphError, match=r"builder on.*No such file"):
        build_graph(gone, tmp_path / "graph", Quantization(), weights=weights)
