import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dualtune_edge.runtime.bundle.opening import Verify, open_bundle
from dualtune_edge.toolkit.errors import BundleError

SMALL = ("model/tokenizer.json", "prompts")


def target(bundle: Path, name: str) -> Path:
    path = bundle / name
    return min(path.iterdir()) if path.is_dir() else path


def by_a_link(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "moved")
    (tmp_path / "moved").write_bytes(b"x" * (tmp_path / "moved").stat().st_size)
    path.symlink_to(tmp_path / "moved")


def by_other_bytes(path: Path, _tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))


def by_more_bytes(path: Path, _tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def by_a_pipe(path: Path, _tmp_path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def by_a_folder(path: Path, _tmp_path: Path) -> None:
    path.unlink()
    path.mkdir()


def by_nothing(path: Path, _tmp_path: Path) -> None:
    path.unlink()


def by_a_link_above(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path.parent, tmp_path / "moved")
    by_other_bytes(tmp_path / "moved" / path.name, tmp_path)
    shutil.rmtree(path.parent)
    path.parent.symlink_to(tmp_path / "moved")


@pytest.mark.parametrize(
    "replace", [by_a_link, by_other_bytes, by_more_bytes, by_a_pipe, by_a_folder, by_nothing, by_a_link_above]
)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("verify", ["always", "once", "never"])
def test_what_takes_a_files_place_after_the_bundle_was_opened_is_not_read(
    bundle: Path, tmp_path: Path, name: str, replace: Callable[[Path, Path], None], verify: Verify
) -> None:
    opened = open_bundle(bundle, verify=verify)
    path = target(bundle, name)
    replace(path, tmp_path)
    with pytest.raises(BundleError):
        opened.read(path.relative_to(bundle).as_posix())


def test_a_file_that_is_not_listed_is_not_read(exported: Path) -> None:
    with pytest.raises(BundleError, match=r"no '\.\./secret' among the files"):
        open_bundle(exported).read("../secret")


def test_a_prompt_of_another_form_is_refused_when_it_is_read(bundle: Path, reseal: Callable[[], None]) -> None:
    stage = open_bundle(bundle).manifest.toolsets[0].selection
    (bundle / stage.prompt).write_text('{"stage": "selection"}', encoding="utf-8")
    reseal()
    with pytest.raises(BundleError, match="template"):
        open_bundle(bundle).plan(stage)
