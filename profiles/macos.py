"""The CPU as macOS describes it: one call of `sysctl`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Final

from dualtune_edge.profiles.schema import Cpu

_FEATURES: Final = {
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
}
_FASTEST: Final = "hw.perflevel0.physicalcpu"  # Apple silicon only
_KEYS: Final = ("machdep.cpu.brand_string", "hw.physicalcpu", "hw.logicalcpu", _FASTEST, "hw.memsize", *_FEATURES)


def read_cpu() -> Cpu:
    """The CPU of this machine."""
    # -i: a key that this chip does not have is left out instead of failing the call
    command = ["/usr/sbin/sysctl", "-i", *_KEYS]
    return parse(subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout)  # noqa: S603


def parse(text: str) -> Cpu:
    """The answer of `sysctl`, one `key: value` a line."""
    table: Mapping[str, str] = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return Cpu(
        name=table.get("machdep.cpu.brand_string", ""),
        features=tuple(sorted(feature for key, feature in _FEATURES.items() if table.get(key) == "1")),
        physical_cores=int(table["hw.physicalcpu"]),
        logical_cores=int(table["hw.logicalcpu"]),
        performance_cores=int(table.get(_FASTEST, table["hw.physicalcpu"])),
        memory=int(table["hw.memsize"]),
    )
