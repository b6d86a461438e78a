"""The packages that this distribution declares, and which extra brings one that is not installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from typing import Final, NamedTuple

from dualtune_edge.toolkit.errors import MissingExtraError

DISTRIBUTION: Final = "dualtune-edge"
_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(?:[^;]*>=(?P<least>[\d.]+))?[^;]*(?P<marker>.*)")
_EXTRA: Final = re.compile(r"""extra == ["'](?P<extra>[\w-]+)["']""")
_SYSTEM: Final = re.compile(r"sys_platform|platform_")
_IMPORT_NAMES: Final = {  # where it is not the distribution's name
    "opentelemetry_api": "opentelemetry",
    "opentelemetry_exporter_otlp_proto_http": "opentelemetry",
    "opentelemetry_sdk": "opentelemetry",
    "pykcs11": "PyKCS11",
    "pyopenssl": "OpenSSL",
    "pyyaml": "yaml",
}
_NO_USERS: Final = "dev"


class Requirement(NamedTuple):
    """A package that is required: by an extra, or (None) by every installation. `least`: its lowest version."""

    name: str
    extra: str | None
    least: str | None = None

    @property
    def module(self) -> str:
        """The name that it is imported by."""
        name = self.name.replace("-", "_").lower()
        return _IMPORT_NAMES.get(name, name)


def requirements(*, systems: bool = False) -> Iterator[Requirement]:
    """What pyproject.toml lists; with `systems` also packages that only some systems need."""
    for match in map(_REQUIREMENT.fullmatch, metadata.requires(DISTRIBUTION) or ()):
        if match and (systems or not _SYSTEM.search(match["marker"])):
            extra = _EXTRA.search(match["marker"])
            yield Requirement(match["name"], extra and extra["extra"], match["least"])


def missing(error: ModuleNotFoundError, where: str) -> MissingExtraError | None:
    """The error for a package that an extra brings: the smallest such extra. None: no extra brings it."""
    module = (error.name or "").partition(".")[0]
    required = [package for package in requirements(systems=True) if package.extra not in {None, _NO_USERS}]
    extras = [package.extra for package in required]
    candidates = [package.extra for package in required if package.module == module]
    if not candidates:
        return None
    extra = min(candidates, key=extras.count)
    return MissingExtraError(
        where,
        found=f"no package {module}",
        expected=f"the packages of the extra `{extra}`",
        fix=f"Run: pip install '{DISTRIBUTION}[{extra}]'",
    )
