import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.partition(";")[0].split("==") for line in lines if not line.startswith("#"))


PINS = pins("constraints.txt")
TRANSFORMERS_4 = {"huggingface_hub", "optimum", "tokenizers", "transformers"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pinned = {plain(name) for name in PINS}
    assert {plain(re.split(r"[<>=!;\[ ]", line, maxsplit=1)[0]) for line in wanted} - pinned == set()


def test_the_pins_are_what_the_checks_run_with() -> None:
    installed = {plain(found.name): found.version.partition("+")[0] for found in metadata.distributions()}
    other = {name: installed[plain(name)] for name, pin in PINS.items() if installed.get(plain(name), pin) != pin}
    assert other == {}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-optimum.txt"])
def test_the_constraints_name_versions_only(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []


def test_other_environments_have_the_same_pins() -> None:
    assert pins("requirements-device.txt").items() <= PINS.items()
    optimum = {name: pin for name, pin in pins("constraints-optimum.txt").items() if PINS[name] != pin}
    assert set(optimum) == TRANSFORMERS_4
