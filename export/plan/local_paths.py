"""Paths that a spec names: files and folders that have to be there."""

from __future__ import annotations

import difflib
from pathlib import Path

from dualtune_edge.toolkit.errors import SpecError


def require_path(where: str, path: Path, *, folder_wanted: bool) -> None:
    """Refuse a path that leads nowhere, or to a file in place of a folder.

    Raises:
        SpecError: it does.

    """
    if not _is_there(path, folder_wanted=folder_wanted):
        raise _nowhere(where, path, folder_wanted=folder_wanted)


def _is_there(path: Path, *, folder_wanted: bool) -> bool:
    try:
        return path.is_dir() if folder_wanted else path.is_file()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


def _nowhere(where: str, path: Path, *, folder_wanted: bool) -> SpecError:
    kind = "folder" if folder_wanted else "file"
    try:
        if path.exists():
            return SpecError(where, found=f"{path}, which is no {kind}", expected=f"a {kind}", fix="Check the path.")
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        return SpecError(where, found=str(error), expected=f"a {kind}", fix="Check the path.")
    near = difflib.get_close_matches(path.name, siblings, n=1)
    fix = f"Did you mean {path.parent / near[0]}?" if near else "Check the path."
    return SpecError(where, found=f"{path}, which does not exist", expected=f"a {kind}", fix=fix)
