import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
)


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


def test_the_constraints_name_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []


def test_the_device_has_the_same_pins() -> None:
    lines = (ROOT / "requirements-device.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.partition(";")[0].split("==") for line in lines if not line.startswith("#"))
    assert pins.items() <= PINS.items()
