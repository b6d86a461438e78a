import os
import platform

import pytest

from dualtune_edge.profiles import detect


def test_this_machine_is_plausible() -> None:
    machine = detect.detect()
    assert machine.system == platform.system()
    assert 1 <= machine.cpu.physical_cores <= machine.cpu.logical_cores <= (os.cpu_count() or 1)
    assert list(machine.cpu.features) == sorted(set(machine.cpu.features))


def test_names_of_architectures_are_made_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, expected in (("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("riscv64", "riscv64")):
        monkeypatch.setattr(platform, "machine", lambda name=name: name)
        assert detect.detect().architecture == expected


def test_a_system_without_a_reader_gives_its_logical_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "FreeBSD")
    cpu = detect.detect().cpu
    assert cpu.features == ()
    assert cpu.logical_cores == os.cpu_count()


def test_onnxruntime_lists_the_cpu() -> None:
    assert "CPUExecutionProvider" in {device.provider for device in detect.ep_devices() if device.kind == "CPU"}
