"""What a hardware profile may say: plain data, so that a bundle for a laptop can be built on any machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph, GraphForm
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization, Quantization
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import nearest

CPU_PROVIDER: Final = "CPUExecutionProvider"
Provider = Literal["CPUExecutionProvider", "OpenVINOExecutionProvider", "QNNExecutionProvider"]
Device = Literal["CPU", "GPU", "NPU"]
Precision = Literal["f32", "bf16", "f16"]
Activations = Literal["int8", "f32"]
Weights = Literal["memory", "mapped"]
KvType = Literal["float32", "int8"]
OPENVINO_PROVIDER: Final = "OpenVINOExecutionProvider"
QNN_PROVIDER: Final = "QNNExecutionProvider"
_DEVICES: Final[dict[Provider, tuple[Device, ...]]] = {
    CPU_PROVIDER: ("CPU",),
    OPENVINO_PROVIDER: ("CPU", "GPU"),
    QNN_PROVIDER: ("NPU",),
}
Count = Annotated[int, Field(ge=1, le=limits.THREADS)]  # of threads


class SessionWishes(Frozen):
    """How a profile wants sessions to run; `resolve` turns it into `SessionSettings` for one machine."""

    threads: Literal["physical", "performance"] | Count = "physical"  # a word: as many as there are such cores
    spinning: bool = True  # idle threads wait in a busy loop between operators
    weights: Weights = "memory"  # packed by each process, or once on the disk and mapped


class OpenVinoOptions(Frozen):
    """Options of OpenVINO's provider beside the device; what is left out is the provider's choice.

    `activations`: of its int4 kernels on the CPU device, whatever the graph's accuracy level says; without it they
    follow that level. The others are OpenVINO's properties INFERENCE_PRECISION_HINT, PERFORMANCE_HINT, NUM_STREAMS
    and SCHEDULING_CORE_TYPE.
    """

    precision: Precision | None = None
    activations: Activations | None = None
    performance_hint: Literal["LATENCY", "THROUGHPUT"] | None = None
    num_streams: Count | None = None
    core_type: Literal["ANY_CORE", "PCORE_ONLY", "ECORE_ONLY"] | None = None


class QnnOptions(Frozen):
    """Options of Qualcomm's compiler: QNN's numbers, as its provider's documentation lists them."""

    soc_model: NonNegativeInt = 0  # 0: any of the architecture, and half of the on-chip memory of the largest
    htp_arch: PositiveInt


class HardwareProfile(Frozen):
    """How a model should be built for, and run on, one kind of machine (`profiles/data/*.toml`)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str
    architecture: str  # as `Machine.architecture`: "x86_64", "arm64"
    system: Literal["Linux", "Darwin", "Windows"] | None = None  # None: any
    features: tuple[str, ...]  # CPU features that it needs, by the names that Linux gives them
    provider: Provider
    device: Device = "CPU"  # of a provider that comes as a package
    openvino: OpenVinoOptions | None = None  # for its provider only
    qnn: QnnOptions | None = None  # for its provider only
    graph: GraphForm = DynamicGraph()
    mode: Mode | None = None  # of adapters; None: the spec's
    kv_type: KvType = "float32"
    memory_mb: PositiveInt | None = None  # the most MB (1e6 bytes) that the weights may take; None: no limit
    quantization: Quantization | None = None  # of a dynamic graph
    qdq: QdqQuantization | None = None  # of a static one
    session: SessionWishes
    why: dict[str, str] = Field(default_factory=dict)  # setting → the author's reason, in one sentence

    @property
    def settings(self) -> dict[str, str]:
        """Every setting that the file makes, as it is written there, by the names that `why` uses."""
        graph = self.graph
        form = "dynamic" if graph.form == "dynamic" else f"static, chunks of {', '.join(map(str, graph.chunks))}"
        made = {"graph": form, "mode": self.mode, "kv_type": self.kv_type, "memory_mb": self.memory_mb}
        written = {name: value for name, value in made.items() if name in self.model_fields_set}
        for part in (self.session, self.openvino, self.qnn, self.quantization, self.qdq):
            written |= dict(part) if part else {}
        words = {True: "on", False: "off"}
        return {
            name: words[value] if isinstance(value, bool) else str(value)
            for name, value in written.items()
            if value is not None
        }

    @model_validator(mode="after")
    def _the_provider_reads_every_key(self) -> Self:
        for name, provider in (("openvino", OPENVINO_PROVIDER), ("qnn", QNN_PROVIDER)):
            if getattr(self, name) is not None and self.provider != provider:
                raise ValueError(f"no `{name}` where {self.provider} runs the model: it would not read it")
        if self.device not in _DEVICES[self.provider]:
            raise ValueError(f"`device` {' or '.join(_DEVICES[self.provider])} for {self.provider}")
        if self.provider == QNN_PROVIDER and self.qnn is None:
            raise ValueError("`qnn`: the SoC that is compiled for")
        if self.provider != CPU_PROVIDER and self.kv_type != "float32":
            raise ValueError(f"`kv_type` float32 for {self.provider}: int8 was measured with {CPU_PROVIDER} alone")
        if self.provider != CPU_PROVIDER and self.session.weights == "mapped":
            raise ValueError(f"no mapped `session.weights` where {self.provider} runs the model: it keeps its own")
        return self

    @model_validator(mode="after")
    def _quantization_is_of_the_graphs_form(self) -> Self:
        static = self.graph.form == "static"
        if static != (self.provider == QNN_PROVIDER):
            raise ValueError(f"a static `graph` for {QNN_PROVIDER}, a dynamic one for others")
        if (self.quantization is None, self.qdq is None) != (static, not static):
            raise ValueError("`quantization` for a dynamic graph, `qdq` for a static one, and not the other")
        return self

    @model_validator(mode="after")
    def _reasons_are_for_its_settings(self) -> Self:
        for name in self.why:
            if name not in self.settings:
                near = nearest(name, self.settings)
                raise ValueError(f"no reason for {name!r}, a setting that it does not make. {near}")
        return self


@dataclass(frozen=True)
class SessionSettings:
    """What every onnxruntime session is opened with.

    `intra_op_threads` → `SessionOptions.intra_op_num_threads`; `spinning` → the config entry
    `session.intra_op.allow_spinning` ("1" or "0"). `device` and `openvino` are for a provider that comes as a package;
    `instead` says why the provider is not the one that was asked for. `weights`: see
    runtime/engines/mapped_weights.py. `packing`: whether the CPU provider packs weights as it opens a graph; without,
    int4 products are computed in float32.
    """

    intra_op_threads: int
    spinning: bool = True
    provider: Provider = CPU_PROVIDER
    device: Device = "CPU"
    openvino: OpenVinoOptions | None = None
    instead: str = ""
    weights: Weights = "memory"
    packing: bool = True

    def __post_init__(self) -> None:
        if self.intra_op_threads < 1:
            raise ValueError(f"{self.intra_op_threads} threads: 0 would let onnxruntime choose")

    def without_provider(self, why: str) -> SessionSettings:
        """By the CPU provider, since the other one fails on the bundle."""
        instead = f"{self.provider} fails on this bundle, so {CPU_PROVIDER} runs it: {why}"
        return replace(self, provider=CPU_PROVIDER, device="CPU", openvino=None, instead=instead)


@dataclass(frozen=True)
class Cpu:
    """A CPU as this process may use it: affinity and cgroup quotas are counted in. `memory` is the machine's, in bytes.

    `features` go by the names that Linux gives them ("avx512_vnni", "asimddp"), whatever the system. `unread` says what
    the system does not say; empty: nothing is missing.
    """

    name: str
    features: tuple[str, ...]  # sorted
    physical_cores: int
    logical_cores: int
    performance_cores: int  # physical ones of the fastest kind; all where there is one kind
    memory: int | None
    unread: str = ""


@dataclass(frozen=True)
class Machine:
    """What a machine has, as far as running a model on its CPU goes."""

    system: str  # "Linux", "Darwin", "Windows"
    architecture: str  # "x86_64", "arm64"
    cpu: Cpu


@dataclass(frozen=True)
class EpDevice:
    """One row of `onnxruntime.get_ep_devices()`: a provider on a device."""

    provider: str
    kind: str  # "CPU", "GPU", "NPU"
    vendor: str
