import re
from dataclasses import replace
from pathlib import Path

from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.plugins import PluginState
from dualtune_edge.profiles.resolve import rank, resolve
from dualtune_edge.profiles.schema import (
    QNN_PROVIDER,
    Cpu,
    EpDevice,
    HardwareProfile,
    Machine,
    OpenVinoOptions,
    QnnOptions,
    SessionSettings,
    SessionWishes,
)
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization, Quantization

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"
CPU = Cpu("Contoso C1", ("asimddp", "i8mm"), physical_cores=8, logical_cores=8, performance_cores=4, memory=None)
QNN = PluginState(QNN_PROVIDER, "1.0", (EpDevice(QNN_PROVIDER, "NPU", "Qualcomm"),))


def examples(folder: Path) -> list[HardwareProfile]:
    texts = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    paths = [folder / f"{index}.toml" for index in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return [catalog.load(path) for path in paths]


def test_the_example_is_all_that_a_new_soc_takes(tmp_path: Path) -> None:
    profile, _ = examples(tmp_path)
    assert profile not in catalog.profiles()
    resolution = resolve(profile, Machine("Linux", "arm64", CPU))
    assert resolution.warnings == ()
    assert resolution.settings == SessionSettings(intra_op_threads=4, spinning=False)
    assert resolution.profile.quantization == Quantization(block_size=64)
    assert "the slow cores would hold up the fast ones" in {reason.why for reason in resolution.reasons}


def test_an_npu_of_a_new_soc_takes_one_file_too(tmp_path: Path) -> None:
    _, npu = examples(tmp_path)
    assert npu.graph == StaticGraph(chunks=(1, 128), kv_length=4096)
    assert npu.qnn == QnnOptions(soc_model=9999, htp_arch=75)
    (candidate,) = rank([npu], Machine("Windows", "arm64", replace(CPU, name="Contoso N1")), lambda _: QNN)
    assert (candidate.usable, candidate.why) == (True, "built for the NPU, which QNNExecutionProvider offers here")


def test_every_key_is_in_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+\.)?\w+)`", text))
    parts = {
        "graph": StaticGraph,
        "openvino": OpenVinoOptions,
        "qnn": QnnOptions,
        "qdq": QdqQuantization,
        "quantization": Quantization,
        "session": SessionWishes,
    }
    keys = {key for key in HardwareProfile.model_fields if key not in {*parts, "description", "why"}}
    keys |= {f"{name}.{key}" for name, model in parts.items() for key in model.model_fields}
    assert keys - named == set()


def test_every_profile_is_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [
        profile.name for profile in catalog.profiles() if f"{profile.name:<20} {profile.description}" not in text
    ] == []
