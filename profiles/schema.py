"""What a hardware profile may say: plain data, so that a bundle for a laptop can be built on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.manifest import Quantization

CPU_PROVIDER: Final = "CPUExecutionProvider"
Provider = Literal["CPUExecutionProvider", "OpenVINOExecutionProvider"]
Device = Literal["CPU", "GPU"]
Precision = Literal["f32", "bf16", "f16"]
Weights = Literal["memory", "mapped"]


class SessionWishes(Frozen):
    """How a profile wants sessions to run; `resolve` turns it into `SessionSettings` for one machine."""

    threads: Literal["physical", "performance"] | PositiveInt = "physical"  # a word: as many as there are such cores
    spinning: bool = True  # idle threads wait in a busy loop between operators
    weights: Weights = "memory"  # packed anew by each process, or once on the disk and mapped


class Why(Frozen):
    """The author's reason for each setting, in one sentence; printed beside the setting."""

    bits: str = ""
    block_size: str = ""
    accuracy_level: str = ""
    algorithm: str = ""
    threads: str = ""
    spinning: str = ""
    precision: str = ""


class HardwareProfile(Frozen):
    """How a model should be built for, and run on, one kind of machine (`profiles/data/*.toml`)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str
    architecture: str  # as `Machine.architecture`: "x86_64", "arm64"
    system: Literal["Linux", "Darwin", "Windows"] | None = None  # None: any
    features: tuple[str, ...]  # CPU features that it needs, by the names that Linux gives them
    provider: Provider
    device: Device = "CPU"  # of a provider that comes as a package
    precision: Precision | None = None  # that such a provider computes in; None: its own choice
    quantization: Quantization
    session: SessionWishes
    why: Why = Why()

    @model_validator(mode="after")
    def _cpu_provider_takes_neither(self) -> Self:
        if self.provider == CPU_PROVIDER and (self.device != "CPU" or self.precision is not None):
            raise ValueError(f"no `device` and no `precision` where {CPU_PROVIDER} runs the model: it reads neither")
        return self


@dataclass(frozen=True)
class SessionSettings:
    """What every onnxruntime session is opened with.

    `intra_op_threads` → `SessionOptions.intra_op_num_threads`; `spinning` → the config entry
    `session.intra_op.allow_spinning` ("1" or "0"). `device` and `precision` are for a provider that comes as a package;
    `instead` says why the provider is not the one that was asked for. `weights`: runtime/mapped_weights.py.
    """

    intra_op_threads: int
    spinning: bool = True
    provider: Provider = CPU_PROVIDER
    device: Device = "CPU"
    precision: Precision | None = None
    instead: str = ""
    weights: Weights = "memory"

    def __post_init__(self) -> None:
        if self.intra_op_threads < 1:
            raise ValueError(f"{self.intra_op_threads} threads: onnxruntime reads 0 as a choice of its own")


@dataclass(frozen=True)
class Cpu:
    """A CPU as this process may use it: affinity and cgroup quotas are counted in. `memory` is the machine's, in bytes.

    `features` go by the names that Linux gives them ("avx512_vnni", "asimddp"), whatever the system.
    """

    name: str
    features: tuple[str, ...]  # sorted
    physical_cores: int
    logical_cores: int
    performance_cores: int  # physical ones of the fastest kind; all where there is one kind
    memory: int | None


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
