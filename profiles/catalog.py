"""Profiles by name (those of this package), or from a file of the user's own."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from dualtune_edge.profiles.schema import HardwareProfile
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ProfileError
from dualtune_edge.toolkit.validation import listing, nearest, validate

PROFILE_VARIABLE: Final = "DUALTUNE_EDGE_PROFILE"
_SUFFIX: Final = ".toml"


def asked_for(flag: str | None) -> str | None:
    """What the user asks for: the flag beats the environment variable; None: neither is given."""
    return flag or os.environ.get(PROFILE_VARIABLE) or None


@functools.cache
def profiles() -> tuple[HardwareProfile, ...]:
    """Every profile of this package, by name."""
    files = [item for item in _folder().iterdir() if item.name.endswith(_SUFFIX)]
    return tuple(
        sorted((parse(file.read_bytes(), where=file.name) for file in files), key=lambda profile: profile.name)
    )


def load(name_or_path: str | Path, others: Iterable[str] = ()) -> HardwareProfile:
    """A profile by its name, or by the path of a `.toml` file; `others`: see `read`.

    Raises:
        ProfileError: no profile has this name, or the file cannot be read or is malformed.

    """
    return parse(read(name_or_path, others), where=str(name_or_path))


def read(name_or_path: str | Path, others: Iterable[str] = ()) -> bytes:
    """The TOML of a profile, by its name or by its path; `others`: names that would have been known where it is asked.

    Raises:
        ProfileError: no profile has this name, or the file cannot be read.

    """
    text = str(name_or_path)
    if text.endswith(_SUFFIX):
        return _read_file(Path(name_or_path))
    known = [profile.name for profile in profiles()]
    if text not in known:
        raise ProfileError(
            f"profile {text!r}",
            found="no profile of this name",
            expected=f"{listing([*others, *known])}, or the path of a {_SUFFIX} file",
            fix=nearest(text, [*others, *known]),
        )
    return (_folder() / f"{text}{_SUFFIX}").read_bytes()


def _read_file(path: Path) -> bytes:
    found = "no plain file"
    if path.is_file() or not path.exists():  # a pipe would be waited for
        try:
            with path.open("rb") as file:
                return file.read(limits.PROFILE_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            found = str(error)
    raise ProfileError(str(path), found=found, expected="a profile file", fix="Check the path.")


def parse(data: bytes, *, where: str) -> HardwareProfile:
    """A profile's TOML.

    Raises:
        ProfileError: it is malformed; `where` names it.

    """
    if len(data) > limits.PROFILE_BYTES:
        found, expected = f"over {limits.PROFILE_BYTES} bytes", "a profile, which is a page long"
        raise ProfileError(where, found=found, expected=expected, fix="Check the path.")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number of too many digits, arrays in arrays
        raise ProfileError(where, found=str(error), expected="a TOML file in UTF-8", fix="Mend the file.") from None
    return validate(HardwareProfile, table, where=where, error=ProfileError)


def _folder() -> Traversable:
    return resources.files("dualtune_edge.profiles") / "data"
