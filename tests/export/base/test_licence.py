"""What a folder says of its licence is read, spelled as SPDX does, and never guessed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dualtune_edge.export.base.licence import read_licence, spdx
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.licences import PartLicence
from dualtune_edge.toolkit.errors import AdapterError


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def card(*lines: str) -> str:
    return "\n".join(("---", *lines, "---", "# A model", "license: mit"))


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("llama3.1", "LicenseRef-llama3.1"),
        ("gemma", "LicenseRef-gemma"),
        ("LicenseRef-contoso", "LicenseRef-contoso"),
        ("MIT AND LicenseRef-contoso", "MIT AND LicenseRef-contoso"),
        ("our own (2026)", "LicenseRef-our-own-2026"),
        ("unknown", None),
        ("  ", None),
    ],
)
def test_names_are_spelled_as_spdx_does(name: str, expression: str | None) -> None:
    assert spdx(name) == expression


@pytest.mark.parametrize("name", ["許諾", "((", "AND", "LicenseRef-\x1b[8m", "LicenseRef-許諾", "x" * 10_000])
def test_any_name_is_one_of_spdx_form(name: str) -> None:
    found = spdx(name) or ""
    assert found.startswith("LicenseRef-")
    PartLicence(kind="base", name="base", licence=found, said_by="card")


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["license: apache-2.0"], "Apache-2.0"),
        (["license: [mit, apache-2.0]"], "Apache-2.0 AND MIT"),
        (["license: other", "license_name: qwen-research"], "LicenseRef-qwen-research"),
        (["license: other"], None),
        (["license: unknown"], None),
        (["license: 5"], None),
        (["base_model: x"], None),
        (["license: [unclosed"], None),
        (["- a", "- list"], None),
    ],
)
def test_the_card_says(tmp_path: Path, lines: list[str], licence: str | None) -> None:
    found = read_licence(folder(tmp_path, {"README.md": card(*lines)}), AdapterError)
    assert found.licence == licence
    assert found.said_by == ("card" if licence else None)


def test_a_card_without_a_head_says_nothing(tmp_path: Path) -> None:
    assert read_licence(folder(tmp_path, {"README.md": "license: mit\n"}), AdapterError).licence is None


def test_the_link_of_the_card_is_kept(tmp_path: Path) -> None:
    lines = ("license: other", "license_name: contoso", "license_link: https://example.org/l")
    found = read_licence(folder(tmp_path, {"README.md": card(*lines)}), AdapterError)
    assert found.link == "https://example.org/l"


def test_a_text_is_named_by_its_identifier(tmp_path: Path) -> None:
    found = read_licence(folder(tmp_path, {"LICENSE.txt": "SPDX-License-Identifier: mit\nPermission …"}), AdapterError)
    assert (found.licence, found.said_by) == ("MIT", "text")


def test_a_text_without_one_is_named_by_its_hash(tmp_path: Path) -> None:
    found = read_licence(folder(tmp_path, {"COPYING": "Do as you like."}), AdapterError)
    assert found.licence == f"LicenseRef-text-{hashlib.sha256(b'Do as you like.').hexdigest()[:12]}"


def test_texts_come_along_that_name_no_licence(tmp_path: Path) -> None:
    names = {"NOTICE": "n", "USE_POLICY.md": "u", "notices.json": "x", "model.safetensors": "w"}
    found = read_licence(folder(tmp_path, {"README.md": card("license: mit"), **names}), AdapterError)
    assert (found.licence, [text.name for text in found.texts]) == ("MIT", ["NOTICE", "USE_POLICY.md"])
    (tmp_path / "README.md").unlink()
    assert read_licence(tmp_path, AdapterError).licence is None


@pytest.mark.parametrize("name", ["README.md", "LICENSE"])
def test_a_pointer_is_no_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(AdapterError, match="LFS"):
        read_licence(folder(tmp_path, {name: "version https://git-lfs.github.com/spec/v1\n"}), AdapterError)


def test_a_link_without_a_target_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").symlink_to(tmp_path / "gone")
    with pytest.raises(AdapterError, match="link"):
        read_licence(tmp_path, AdapterError)


def test_no_text_is_endless(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="bytes"):
        read_licence(folder(tmp_path, {"LICENSE": "x" * (limits.LICENCE_BYTES + 1)}), AdapterError)
