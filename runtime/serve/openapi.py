"""What the server answers at `/openapi.json`: its routes, what they take, and what comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import metadata
from typing import Any, Final, TypeAlias

from dualtune_edge.runtime.serve.agent_route import AgentRequest, ApprovalRequest
from dualtune_edge.runtime.serve.requests import NO_MATTER, NOT_SERVED, ChatRequest
from dualtune_edge.toolkit import limits

Schema: TypeAlias = dict[str, Any]
_COMPONENT: Final = "#/components/schemas/"
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_ERRORS: Final = {
    400: "The request is malformed, or asks for what is not served.",
    401: "No API key, or a wrong one.",
    403: "The Host or the Origin is not the server's.",
    404: "It is not here.",
    409: "The run waits for no approval.",
    413: "The body is too large.",
    429: "Too many requests wait.",
    500: "An error on this side.",
    504: "The deadline is over.",
}


def description(model: str, tools: Collection[str], *, key: bool, tasks: bool) -> Schema:
    """The OpenAPI document.

    Args:
        model: the name of the one model.
        tools: names of the bundle's tools.
        key: whether an API key is needed.
        tasks: whether `/v1/agent` is served.

    """
    paths = _paths() | (_task_paths() if tasks else {})
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "dualtune-edge", "version": metadata.version("dualtune-edge")},
        "paths": paths,
        "components": {"schemas": _schemas(model, tools)},
    }
    if key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _paths() -> Schema:
    completion = {
        "application/json": {"schema": {"$ref": f"{_COMPONENT}ChatCompletion"}},
        "text/event-stream": {"schema": {}},
    }
    chat = _operation("A chat completion", completion, 400, 404, 413, 429, 504, body="ChatRequest")
    one_model = _operation("The model of that name", _json({"$ref": f"{_COMPONENT}Model"}), 404)
    return {
        "/v1/chat/completions": {"post": chat},
        "/v1/models": {
            "get": _operation("The one model", _json(_object({"object": _TEXT, "data": {"type": "array"}})))
        },
        "/v1/models/{model}": {"get": one_model, "parameters": [_path_parameter("model")]},
        "/v1/toolsets": {"get": _operation("The bundle's tools", _json(_object({"model": _TEXT, "toolsets": {}})))},
        "/health": {"get": _operation("Whether it answers", _json(_health()))},
        "/metrics": {"get": _operation("For Prometheus", {"text/plain": {"schema": _TEXT}})},
        "/openapi.json": {"get": _operation("This document", _json({"type": "object"}))},
    }


def _health() -> Schema:
    """`release` and `superseded` are null where there is no release, and no store that has a newer one."""
    release: Schema = {"type": ["string", "null"]}
    return _object({"status": _TEXT, "model": _TEXT, "version": _TEXT, "release": release, "superseded": release})


def _task_paths() -> Schema:
    begin = _operation("A whole task", {"text/event-stream": {"schema": {}}}, 400, 413, 429, body="AgentRequest")
    approve = _operation(
        "What a run waits for", _json(_object({"reply": _TEXT})), 400, 404, 409, 413, body="ApprovalRequest"
    )
    stop = _operation("Stop a run", None, 404)
    return {
        "/v1/agent": {"post": begin},
        "/v1/agent/{run}": {"delete": stop, "parameters": [_path_parameter("run")]},
        "/v1/agent/{run}/approvals": {"post": approve, "parameters": [_path_parameter("run")]},
    }


def _operation(summary: str, content: Schema | None, *errors: int, body: str | None = None) -> Schema:
    """A route's method; `content` None: the answer has no body."""
    answered = {"description": summary} | ({} if content is None else {"content": content})
    error = _json({"$ref": f"{_COMPONENT}Error"})
    responses = {
        str(status): {"description": _ERRORS[status], "content": error} for status in sorted({*errors, 401, 403, 500})
    }
    operation: Schema = {
        "summary": summary,
        "responses": {"204" if content is None else "200": answered, **responses},
    }
    if body:
        operation["requestBody"] = {"required": True, "content": _json({"$ref": _COMPONENT + body})}
    return operation


def _schemas(model: str, tools: Collection[str]) -> Schema:
    schemas: Schema = {}
    for kind in (ChatRequest, AgentRequest, ApprovalRequest):
        schema = kind.model_json_schema(ref_template=_COMPONENT + "{model}")
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    messages = {"type": "array", "items": _message(), "minItems": 1, "maxItems": limits.MESSAGES}
    chat, task = schemas["ChatRequest"]["properties"], schemas["AgentRequest"]["properties"]
    chat |= {name: {"enum": list(harmless)} for name, harmless in NOT_SERVED.items()}
    chat |= {name: {} for name in sorted(NO_MATTER)}
    chat["model"] = {"const": model}
    for named in ("RequestedFunction", "NamedFunction"):
        schemas[named]["properties"]["name"] = {"enum": sorted(tools)}
    chat["messages"], task["messages"] = messages, {"anyOf": [messages, {"type": "null"}]}
    return schemas | _answers()


def _message() -> Schema:
    """A message as clients send it."""
    nothing = {"type": "null"}
    parts = {"type": "array", "items": _object({"type": {"const": "text"}, "text": _TEXT}), "minItems": 1}
    said = {"anyOf": [_TEXT, parts]}
    call = _object(
        {"id": _TEXT, "type": {"const": "function"}, "function": _object({"name": _TEXT, "arguments": _TEXT})}
    )
    name = {"anyOf": [_TEXT, nothing]}
    asked = _object({"role": {"enum": ["system", "developer", "user"]}, "content": said})
    answered = _object({"role": {"const": "assistant"}})
    answered["properties"] |= {
        "content": {"anyOf": [_TEXT, parts, nothing]},
        "tool_calls": {"anyOf": [{"type": "array", "items": call}, nothing]},
    }
    result = _object({"role": {"const": "tool"}, "content": said, "tool_call_id": _TEXT})
    for message in (asked, answered, result):
        message["properties"]["name"] = name
        message["additionalProperties"] = False
    return {"anyOf": [asked, answered, result]}


def _answers() -> Schema:
    error = _object(
        {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}
    )
    usage = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
    message = _object({"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}})
    reasons = {"enum": ["stop", "length", "tool_calls"]}
    choice = _object({"index": {"const": 0}, "message": message, "finish_reason": reasons})
    return {
        "Error": _object({"error": error}),
        "Model": _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT}),
        "ChatCompletion": _object(
            {
                "id": _TEXT,
                "object": {"const": "chat.completion"},
                "created": _COUNT,
                "model": _TEXT,
                "choices": {"type": "array", "items": choice},
                "usage": usage,
            }
        ),
    }


def _object(properties: Mapping[str, Schema]) -> Schema:
    """An object that has all of these, and maybe more."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
