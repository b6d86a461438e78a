"""The template that a folder has: the one that transformers takes there for prompts with tools."""

from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit.random_checkpoint import SHAPES, write_checkpoint
from transformers import PreTrainedTokenizerFast

from dualtune_edge.export.base.chat_template import TemplateText, read_template
from dualtune_edge.toolkit.errors import TemplateError

NAMED = [{"name": "default", "template": "of several"}, {"name": "tool_use", "template": "for tools"}]
FOLDERS: dict[str, tuple[Any, dict[str, str]]] = {
    "its config's": ("config", {}),
    "default of several": (NAMED[:1], {}),
    "for tools": (NAMED, {}),
    "a file": ("config", {"chat_template.jinja": "file"}),
    "a file for tools": (
        "config",
        {"chat_template.jinja": "file", "additional_chat_templates/tool_use.jinja": "tools file"},
    ),
    "a file besides": (
        "config",
        {"chat_template.jinja": "file", "additional_chat_templates/rag.jinja": "for documents"},
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_checkpoint(folder, SHAPES["tiny"])
    return folder


@pytest.mark.parametrize("which", FOLDERS)
def test_it_is_the_one_that_transformers_takes(which: str, base: Path, tmp_path: Path) -> None:
    of_config, files = FOLDERS[which]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), chat_template=of_config)
    tokenizer.save_pretrained(tmp_path / "saved", save_jinja_files=False)
    for name in files:
        (tmp_path / "saved" / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "saved" / name)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved").get_chat_template(tools=[{}])
    found = read_template(tmp_path / "saved", {"chat_template": of_config})
    assert found is not None
    assert found.source == theirs


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert read_template(tmp_path, {"chat_template": None}) is None
    assert read_template(tmp_path, {"chat_template": "text"}) == TemplateText(
        f"{tmp_path / 'tokenizer_config.json'}, chat_template", "text"
    )


@pytest.mark.parametrize("value", [[], [{"name": "rag", "template": "x"}], 5, [{"name": "default", "template": 5}]])
def test_what_is_no_template_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"tokenizer_config\.json, chat_template"):
        read_template(tmp_path, {"chat_template": value})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match=r"chat_template\.jinja"):
        read_template(tmp_path, {})
