"""Packages are listed once, in pyproject.toml; what must repeat a list agrees with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dualtune_edge.export.plan.steps import PACKAGES
from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.errors import MissingExtraError

OURS = {"dualtune_edge"}
WITH_ANOTHER = {  # what a package brings along
    "jsonschema_specifications": "jsonschema",
    "pydantic_core": "pydantic",
    "referencing": "jsonschema",
}


def third_party(names: set[str]) -> set[str]:
    return {WITH_ANOTHER.get(name, name) for name in names - OURS - sys.stdlib_module_names}


def test_the_linter_forbids_the_device_what_the_build_side_lists(
    pyproject: dict[str, Any], build_side: set[str]
) -> None:
    (contract,) = (
        contract
        for contract in pyproject["tool"]["importlinter"]["contracts"]
        if contract["name"] == "The device installs no build-side package"
    )
    assert set(contract["forbidden_modules"]) == build_side


@pytest.mark.parametrize("wing", ["toolkit", "profiles", "runtime"])
def test_the_device_declares_what_it_imports(
    wing: str, imported: Callable[[str], set[str]], modules: Callable[[str], set[str]]
) -> None:
    optional = {
        module for extra in ("agent", "genai", "openvino", "qnn", "serve", "trust") for module in modules(extra)
    }
    assert third_party(imported(wing)) - modules("") - optional == set()


def test_the_build_side_declares_what_it_imports(
    imported: Callable[[str], set[str]], modules: Callable[[str], set[str]]
) -> None:
    declared = {module for extra in ("", "export", "generate", "sign") for module in modules(extra)}
    assert third_party(imported("export")) - declared == set()


def test_the_manifest_names_packages_that_are_declared(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["export"], project["name"]]
    assert set(PACKAGES) <= {re.split(r"[<>=!;\[ ]", line, maxsplit=1)[0] for line in lines}


def test_the_metadata_is_read_as_it_was_written(modules: Callable[[str], set[str]]) -> None:
    for extra in ("agent", "bitsandbytes", "export", "genai", "otel", "qnn", "openvino", "serve", "sign", "trust"):
        required = {package.module for package in extras.requirements(systems=True) if package.extra == extra}
        assert required == modules(extra)
    everywhere = {package.module for package in extras.requirements() if package.extra is None}
    assert everywhere == modules("") - {"archspec"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch.nn", "export"),
        ("bitsandbytes.nn", "bitsandbytes"),
        ("yaml", "export"),
        ("onnxruntime_genai", "genai"),
        ("onnxruntime_qnn", "qnn"),
        ("cryptography", "trust"),
        ("OpenSSL", "sign"),
        ("opentelemetry.sdk", "otel"),
    ],
)
def test_a_missing_package_names_the_smallest_extra_that_brings_it(module: str, extra: str) -> None:
    error = extras.missing(ModuleNotFoundError(name=module), "here")
    assert isinstance(error, MissingExtraError)
    assert error.fix == f"Run: pip install 'dualtune-edge[{extra}]'"


@pytest.mark.parametrize("module", ["spam", "pytest", "numpy", None])
def test_a_package_that_no_users_extra_brings_names_none(module: str | None) -> None:
    assert extras.missing(ModuleNotFoundError(name=module), "here") is None
