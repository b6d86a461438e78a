"""Folders of argument adapters: each is one tool's, or is refused by name."""

import shutil

import pytest
from export_desk import Desk

from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import safe_name

pytestmark = pytest.mark.usefixtures("no_work")


def test_a_folder_of_adapters_for_no_tool(own_desk: Desk) -> None:
    shutil.rmtree(own_desk.folder / "writers" / "write")
    (own_desk.folder / "writers" / "read").rename(own_desk.folder / "writers" / "red")
    own_desk.refused(SpecError, "'files'", "'red'", "Did you mean 'read'?")


def test_an_adapter_in_a_mapping_for_no_tool(own_desk: Desk) -> None:
    own_desk.change("arguments: writers", "arguments: {red: writers/read}")
    own_desk.refused(SpecError, "'files'", "'red'", "Did you mean 'read'?")


def test_an_adapter_for_a_tool_that_takes_no_arguments(own_desk: Desk) -> None:
    own_desk.change("arguments: writers", "arguments: {roots: writers/read}")
    own_desk.refused(SpecError, "'roots'", "takes no arguments")


def test_two_adapters_for_one_tool(own_desk: Desk) -> None:
    own_desk.rewrite("files.json", lambda value: value["tools"][0].update(name="Read"))
    (own_desk.folder / "writers" / "read").rename(own_desk.folder / "writers" / "Read")
    shutil.copytree(own_desk.folder / "writers" / "Read", own_desk.folder / "writers" / safe_name("Read"))
    own_desk.refused(SpecError, "two adapters for 'Read'")


def test_one_adapter_where_a_folder_of_adapters_should_be(own_desk: Desk) -> None:
    own_desk.change("arguments: writers", "arguments: writers/read")
    own_desk.refused(SpecError, "an adapter itself", "Name the folder above it")
