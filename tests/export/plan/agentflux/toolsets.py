"""Three tool lists of AgentFlux's shape, in words of our own: OpenAI functions, every object's keys alphabetical."""

from __future__ import annotations

from typing import Any

TEXT, NUMBER, WHOLE, FLAG = ({"type": name} for name in ("string", "number", "integer", "boolean"))
TEXTS = {"items": TEXT, "type": "array"}


def listed(lists: dict[str, tuple[str, dict[str, Any], list[str]]], **schema: Any) -> list[dict[str, Any]]:
    """As `config/<toolset>/tool_list.json` has it."""
    found = []
    for name, (description, properties, required) in lists.items():
        parameters = {**schema, "properties": properties, "required": required, "type": "object"}
        function = {"description": description, "name": name, "parameters": _sorted(parameters)}
        found.append({"function": function, "type": "function"})
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


HEAD = {"description": "Lines from the start", "type": "number"}
EDIT = {
    "additionalProperties": False,
    "properties": {"new": {"description": "What stands there then", "type": "string"}, "old": TEXT},
    "required": ["old", "new"],
    "type": "object",
}
FILES = listed(
    {
        "show_file": ("Show a file's text.", {"head": HEAD, "path": TEXT, "tail": NUMBER}, ["path"]),
        "show_text": ("Show a text file; 'head' is for its start.", {"head": HEAD, "path": TEXT}, ["path"]),
        "show_files": ("Show several files at once.", {"paths": TEXTS}, ["paths"]),
        "save_file": ("Write a file, whatever was in it.", {"content": TEXT, "path": TEXT}, ["path", "content"]),
        "change_file": (
            "Replace lines.",
            {"dryRun": {"default": False, "type": "boolean"}, "edits": {"items": EDIT, "type": "array"}, "path": TEXT},
            ["path", "edits"],
        ),
        "make_folder": ("Make a folder, and those above it.", {"path": TEXT}, ["path"]),
        "show_folder": ("List a folder: [FILE] and [DIR].", {"path": TEXT}, ["path"]),
        "show_sizes": (
            "List a folder with sizes.",
            {"path": TEXT, "sortBy": {"default": "name", "enum": ["name", "size"], "type": "string"}},
            ["path"],
        ),
        "show_tree": ("A folder and all below it, as JSON.", {"path": TEXT}, ["path"]),
        "rename": ("Move or rename.", {"destination": TEXT, "source": TEXT}, ["source", "destination"]),
        "find": (
            "Search names.",
            {"excludePatterns": {"default": [], "items": TEXT, "type": "array"}, "path": TEXT, "pattern": TEXT},
            ["path", "pattern"],
        ),
        "describe": ("Size, times and rights.", {"path": TEXT}, ["path"]),
    },
    **{"$schema": "http://json-schema.org/draft-07/schema#", "additionalProperties": False},
) + listed({"show_roots": ("Which folders are allowed.", {}, [])})

KIND = {"enum": ["status", "date", "people"], "type": "string"}
BOARDS = listed(
    {
        "find_items": ("Items of a board by a word.", {"boardId": NUMBER, "term": TEXT}, ["boardId", "term"]),
        "add_item": (
            "A new item.",
            {"boardId": NUMBER, "columnValues": TEXT, "groupId": TEXT, "name": TEXT},
            ["boardId", "name", "columnValues"],
        ),
        "comment": ("Write below an item.", {"body": TEXT, "itemId": NUMBER}, ["itemId", "body"]),
        "activity": (
            "What changed.",
            {"boardId": NUMBER, "fromDate": {"format": "date-time", "type": "string"}, "toDate": TEXT},
            ["boardId"],
        ),
        "show_board": ("A board with its columns.", {"boardId": NUMBER}, ["boardId"]),
        "find_people": ("People by a part of the name.", {"name": TEXT}, []),
        "add_board": (
            "A new board.",
            {"boardKind": {"default": "public", "enum": ["private", "public"], "type": "string"}, "boardName": TEXT},
            ["boardName"],
        ),
        "add_column": (
            "A new column.",
            {"boardId": NUMBER, "columnSettings": {"items": TEXT, "type": "array"}, "columnType": KIND},
            ["boardId", "columnType"],
        ),
        "query": ("Any query.", {"query": TEXT, "variables": TEXT}, ["query", "variables"]),
        "show_schema": ("The API.", {"operationType": {"enum": ["read", "write"], "type": "string"}}, []),
        "column_kind": ("What a column holds.", {"columnType": KIND}, ["columnType"]),
        "type_details": ("One type of the API.", {"typeName": TEXT}, ["typeName"]),
        "read_pages": (
            "Documents.",
            {"ids": {"items": TEXT, "minItems": 1, "type": "array"}, "limit": {"minimum": 1, "type": "number"}},
            ["ids"],
        ),
        "show_space": ("A workspace.", {"workspace_id": NUMBER}, ["workspace_id"]),
        "list_spaces": ("All workspaces.", {}, []),
        "add_page": (
            "A new document.",
            {
                "doc_name": TEXT,
                "location": {"anyOf": [{"properties": {"item": NUMBER}, "required": ["item"], "type": "object"}, TEXT]},
                "markdown": TEXT,
            },
            ["location", "doc_name", "markdown"],
        ),
    },
    **{"$schema": "http://json-schema.org/draft-07/schema#", "additionalProperties": False},
)

CURSOR = {
    "page_size": {"default": 100, "type": "integer"},
    "start_cursor": {"description": "From here", "type": "string"},
}
PAGES = listed(
    {
        "API-user": ("Pages | One user", {"user_id": {"format": "uuid", "type": "string"}}, ["user_id"]),
        "API-users": ("Pages | All users", CURSOR, []),
        "API-self": ("Pages | Who asks", {}, []),
        "API-search": (
            "Pages | Search by title",
            {
                **CURSOR,
                "filter": {"additionalProperties": True, "properties": {"value": TEXT}, "type": "object"},
                "query": TEXT,
            },
            [],
        ),
        "API-children": ("Pages | What a block holds", {**CURSOR, "block_id": TEXT}, ["block_id"]),
        "API-block": ("Pages | One block", {"block_id": TEXT}, ["block_id"]),
        "API-page": ("Pages | One page", {"filter_properties": TEXT, "page_id": TEXT}, ["page_id"]),
    },
    **{"$defs": {}},
)
TOOLSETS = {"files": FILES, "boards": BOARDS, "pages": PAGES}
