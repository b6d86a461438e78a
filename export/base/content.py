"""Files whose content is not on this machine: Git LFS's pointers, and links into a cache whose target is gone."""

from __future__ import annotations

from pathlib import Path

from dualtune_edge.toolkit.errors import EdgeError
from dualtune_edge.toolkit.strict_json import LFS_POINTER


def require_content(path: Path, error: type[EdgeError]) -> None:
    """Refuse a file that stands for another one; a file that is missing altogether passes.

    Args:
        path: the file.
        error: the class of the error.

    Raises:
        EdgeError: of this class: a link without a target, a pointer of Git LFS, or no regular file.

    """
    if path.is_symlink() and not path.exists():
        raise error(
            str(path),
            found=f"a link to {path.readlink()}, where no file is",
            expected="the file itself",
            fix="Download it again: the cache that the link points into was moved or cleaned.",
        )
    if not path.exists():
        return
    if not path.is_file():
        raise error(
            str(path), found="a folder or a device", expected="a file", fix="Copy or download the folder again."
        )
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER.encode():
        raise error(
            str(path),
            found="a pointer of Git LFS, which stands for the file",
            expected="the file itself",
            fix="Fetch it: `git lfs pull` in the repository that the folder was cloned from.",
        )
