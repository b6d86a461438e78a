"""The application: routes, and what every request goes through."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.serve.agent_route import AgentRoute
from dualtune_edge.runtime.serve.completions import Completion
from dualtune_edge.runtime.serve.current_agent import CurrentAgent
from dualtune_edge.runtime.serve.engine_queue import ClientGoneError, EngineQueue, in_thread, pieces_in_thread
from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.event_stream import EventStream, server_sent
from dualtune_edge.runtime.serve.guard import Guard, read_body
from dualtune_edge.runtime.serve.monitoring.log import CallLog
from dualtune_edge.runtime.serve.monitoring.metrics import Metrics
from dualtune_edge.runtime.serve.monitoring.spans import chat_span
from dualtune_edge.runtime.serve.openapi import description
from dualtune_edge.runtime.serve.page_files import FILES, page_file
from dualtune_edge.runtime.serve.requests import read_request
from dualtune_edge.toolkit.errors import EdgeError, StoreError

_GONE: Final = 499  # nginx's status for a client that went away; nobody reads it
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class Service:
    """What the routes share."""

    agents: CurrentAgent
    guard: Guard = field(default_factory=Guard)
    runs: AgentRoute | None = None  # None: no servers are connected
    waiting: int = 16
    seconds: float | None = 120.0  # that a request may take
    log: CallLog = field(default_factory=CallLog)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.metrics, self.queue = Metrics(), EngineQueue(self.waiting)
        self.model = self.agents.name

    def application(self) -> Starlette:
        """The ASGI application."""
        routes: dict[tuple[str, str], Endpoint] = {
            ("/v1/chat/completions", "POST"): self.chat,
            ("/v1/models", "GET"): self.models,
            ("/v1/models/{model}", "GET"): self.one_model,
            ("/health", "GET"): self.health,
            ("/metrics", "GET"): self.figures,
            ("/openapi.json", "GET"): self.openapi,
            ("/v1/toolsets", "GET"): self.toolsets,
        }
        if self.runs:
            routes |= {
                ("/v1/agent", "POST"): self.runs.begin,
                ("/v1/agent/{run}", "DELETE"): self.runs.stop,
                ("/v1/agent/{run}/approvals", "POST"): self.runs.approve,
            }
            if self.guard.key is None:  # a browser brings no key along when a page is opened
                routes |= {(path, "GET"): page_file for path in FILES}
        return Starlette(
            routes=[
                Route(path, self._guarded(path, work), methods=[method, "OPTIONS"])
                for (path, method), work in routes.items()
            ],
            exception_handlers={HTTPException: _no_such_route, Exception: _defect},
        )

    async def chat(self, request: Request) -> Response:
        """A chat completion, whole or streamed."""
        asked = read_request(await read_body(request))
        if asked.model != self.model:
            raise ApiError(404, f"The model {asked.model!r} is not here; this is {self.model!r}.", param="model")
        async with contextlib.AsyncExitStack() as stack:
            completion = Completion(stack.enter_context(self.agents.lease()), asked, self.seconds)
            completion.check()
            await stack.enter_async_context(self.queue.turn())
            if await request.is_disconnected():
                raise ClientGoneError
            stack.enter_context(self._recorded(completion, request))
            cancel = threading.Event()
            if not asked.stream:
                await in_thread(lambda: list(completion.run(cancel)), cancel, request.is_disconnected)
                return JSONResponse(completion.whole())
            chunks = pieces_in_thread(completion.chunks(completion.run(cancel)), cancel, request.is_disconnected)
            stack.push_async_callback(chunks.aclose)
            # Before the status is sent, the role and what the engine has to say: an error has a status of its own.
            first = [await anext(chunks), await anext(chunks)]
            return EventStream(_events(first, chunks), stack.pop_all())

    async def models(self, _request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one_model(self, request: Request) -> Response:
        """The model of that name."""
        if request.path_params["model"] != self.model:
            raise ApiError(404, f"The model {request.path_params['model']!r} is not here.", param="model")
        return JSONResponse(self._model())

    async def toolsets(self, _request: Request) -> Response:
        """The bundle's toolsets, with each tool's schema."""
        toolsets = [entry.toolset.model_dump(mode="json") for entry in self.agents.agent.bundle.manifest.toolsets]
        return JSONResponse({"model": self.model, "toolsets": toolsets})

    async def health(self, _request: Request) -> Response:
        """That the server answers, and what it serves. `superseded`: what its store has by now; SIGHUP takes it."""
        bundle = self.agents.agent.bundle
        release = bundle.manifest.release
        state: dict[str, str | int | None] = {
            "status": "ok",
            "model": self.model,
            "version": metadata.version("dualtune-edge"),
            "waiting": self.queue.length,
            "release": str(release) if release else None,
            "superseded": None,
        }
        try:
            state["superseded"] = bundle.superseded
        except StoreError as error:  # what is open goes on
            state["store_error"] = str(error)
        return JSONResponse(state)

    async def figures(self, _request: Request) -> Response:
        """For Prometheus."""
        self.metrics.waiting.set(self.queue.length)
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, _request: Request) -> Response:
        """The description of this server."""
        toolsets = self.agents.agent.bundle.manifest.toolsets
        names = {tool.name for entry in toolsets for tool in entry.toolset.tools}
        key, tasks = self.guard.key is not None, self.runs is not None
        return JSONResponse(description(self.model, names, key=key, tasks=tasks))

    async def reload(self, opening: Callable[[], Agent]) -> None:
        """Open the bundle beside the one that is served, and serve it. If it cannot be opened, nothing changes."""
        start = time.perf_counter()
        try:
            agent = await asyncio.to_thread(opening)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new bundle, the old one goes on
            self.log.write({"event": "reload_failed", "error": str(error) or type(error).__name__})
            return
        await asyncio.to_thread(self.agents.replace, agent)
        self.log.write({"event": "reloaded", "model": self.model, "seconds": round(time.perf_counter() - start, 3)})

    @contextlib.contextmanager
    def _recorded(self, completion: Completion, request: Request) -> Iterator[None]:
        """Count, log and trace a completion that is at the engine, whatever becomes of it."""
        with chat_span(completion, request.headers):
            try:
                yield
            finally:
                seconds = time.monotonic() - completion.arrived
                self.metrics.completed(completion.usage(), seconds)
                self.log.completed(completion, seconds)

    def _model(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self.started, "owned_by": "dualtune-edge"}

    def _guarded(self, path: str, work: Endpoint) -> Endpoint:
        """The endpoint behind the guard, with every error as OpenAI's object."""

        async def endpoint(request: Request) -> Response:
            try:
                if request.method == "OPTIONS":
                    self.guard.check_place(request)
                    response = Response(status_code=204)
                else:
                    self.guard.check(request)
                    response = await work(request)
            except (ApiError, EdgeError) as error:
                answer = error if isinstance(error, ApiError) else ApiError.of(error)
                self.log.refused(path, answer)
                response = JSONResponse(answer.body, answer.status, headers=answer.headers)
            except ClientGoneError:
                response = Response(status_code=_GONE)
            response.headers.update(self.guard.headers(request))
            self.metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return endpoint


async def _no_such_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    answer = ApiError(error.status_code, f"{error.detail}.")
    return JSONResponse(answer.body, answer.status, headers=error.headers)


async def _defect(_request: Request, _error: Exception) -> Response:
    """An error that nobody foresaw. The server writes its traceback to stderr."""
    answer = ApiError(500, "An error on this side, which its log shows.")
    return JSONResponse(answer.body, answer.status)


async def _events(first: list[dict[str, Any]], chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        for chunk in first:
            yield server_sent(chunk)
        async for chunk in chunks:
            yield server_sent(chunk)
        yield server_sent("[DONE]")
    except EdgeError as error:
        yield server_sent(ApiError.of(error).body)
    except ClientGoneError:
        return
