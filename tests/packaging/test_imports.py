import os
import subprocess
import sys

import pytest

EVERY_MODULE = """
import importlib, pkgutil, sys
for name in {wings!r}:
    wing = importlib.import_module(f"dualtune_edge.{{name}}")
    for module in pkgutil.walk_packages(wing.__path__, f"dualtune_edge.{{name}}."):
        importlib.import_module(module.name)
print(*sorted({packages!r} & set(sys.modules)))
"""
RECORD_SILENCE = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "onnxruntime_genai"):
            print(name, os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import dualtune_edge.{wing}
import onnxruntime, onnxruntime_genai
"""


def fresh(code: str) -> str:
    """What a new process prints that runs `code` where neither CI nor the telemetry switch is set."""
    hidden = {"CI", "ORT_DISABLE_TELEMETRY"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment).stdout


def test_the_devices_wings_load_nothing_of_the_build_side(build_side: set[str]) -> None:
    wings = ("toolkit", "profiles", "runtime")
    assert fresh(EVERY_MODULE.format(wings=wings, packages=build_side)).split() == []


def test_the_shared_words_load_no_engine(build_side: set[str]) -> None:
    heavy = {*build_side, "onnxruntime", "onnxruntime_genai", "numpy"}
    assert fresh(EVERY_MODULE.format(wings=("toolkit",), packages=heavy)).split() == []


@pytest.mark.parametrize("wing", ["profiles", "runtime", "export"])
def test_telemetry_is_off_before_an_engine_is_imported(wing: str) -> None:
    lines = fresh(RECORD_SILENCE.format(wing=wing)).split("\n")
    assert {line for line in lines if line} == {"onnxruntime 1", "onnxruntime_genai 1"}
