"""The bytes of a bundle are the same on any number of cores."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig

from dualtune_edge.export.work.threads import THREADS, fixed_threads

# Prompts of several lengths: products of odd numbers of tokens depend most on how they are shared out.
TOOLS = [
    {"name": f"read{'x' * extra}", "description": "Read " + "a " * extra, "inputSchema": {"properties": {"path": {}}}}
    for extra in range(3)
]
SPEC = """\
base: base
profile: int8.toml
prefix_states_type: auto
parity: {prompts: 2, argument_tokens: 4}
toolsets:
  - {name: files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}
"""
SCRIPT = """\
import gc, os, sys
cores = set(range(int(sys.argv[3]))) & os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
if cores:
    os.sched_setaffinity(0, cores)
from pathlib import Path
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.export.run import run
gc.freeze()  # as the command line does
run(read_spec(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = tmp_path_factory.mktemp("desk")
    write_checkpoint(desk / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "two")):
        write_adapter(desk / name, desk / "base", config, seed=seed)
    (desk / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (desk / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    text = (resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml").read_text(encoding="utf-8")
    (desk / "int8.toml").write_text(text.replace('"cpu-x64"', '"int8"').replace('"float32"', '"int8"'), "utf-8")
    return desk


def test_exports_on_other_numbers_of_cores_are_equal(desk: Path, tmp_path: Path) -> None:
    bundles = []
    for cores, threads in ((1, "1"), (64, "2")):
        bundle = tmp_path / f"{cores} cores, {threads} threads"
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [sys.executable, "-c", SCRIPT, str(desk / "dualtune.yaml"), str(bundle), str(cores)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        bundles.append(
            {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
        )
    one, other = bundles
    assert "export.json" in one
    assert one.keys() == other.keys()
    assert {path for path in one if one[path] != other[path]} == set()


def test_products_are_rounded_alike_whatever_the_number_of_threads_was() -> None:
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    rows, matrix = (torch.randn(count, 896, generator=generator) for count in (7, 896))
    products = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with fixed_threads():
            products.append(torch.nn.functional.linear(rows, matrix))
    torch.set_num_threads(before)
    assert all(torch.equal(product, products[0]) for product in products)


def test_the_number_of_threads_is_the_callers_again() -> None:
    before = torch.get_num_threads()
    with fixed_threads():
        assert torch.get_num_threads() == THREADS
    assert torch.get_num_threads() == before
