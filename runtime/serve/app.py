"""The application: routes, and what every request goes through."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

import anyio
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.serve.agent_route import AgentRoute
from dualtune_edge.runtime.serve.completions import Completion
from dualtune_edge.runtime.serve.engine_queue import ClientGoneError, EngineQueue, in_thread, pieces_in_thread
from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.guard import Guard, read_body
from dualtune_edge.runtime.serve.log import CallLog
from dualtune_edge.runtime.serve.metrics import Metrics
from dualtune_edge.runtime.serve.page_files import FILES, page_file
from dualtune_edge.runtime.serve.requests import read_request
from dualtune_edge.toolkit.errors import EdgeError

_GONE: Final = 499  # nginx's status for a client that went away; nobody reads it
_DONE: Final = b"data: [DONE]\n\n"
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class Service:
    """What the routes share."""

    agent: Agent
    guard: Guard = field(default_factory=Guard)
    runs: AgentRoute | None = None  # None: no servers are connected
    waiting: int = 16
    seconds: float | None = 120.0  # that a request may take at the engine
    log: CallLog = field(default_factory=CallLog)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.metrics, self.queue = Metrics(), EngineQueue(self.waiting)
        self.model = self.agent.bundle.root.resolve().name

    def application(self) -> Starlette:
        """The ASGI application."""
        routes: dict[tuple[str, str], Endpoint] = {
            ("/v1/chat/completions", "POST"): self.chat,
            ("/v1/models", "GET"): self.models,
            ("/v1/models/{model}", "GET"): self.one_model,
            ("/health", "GET"): self.health,
            ("/metrics", "GET"): self.figures,
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
                Route(path, self._guarded(path, work), methods=[method]) for (path, method), work in routes.items()
            ],
            exception_handlers={HTTPException: _no_such_route},
        )

    async def chat(self, request: Request) -> Response:
        """A chat completion, whole or streamed."""
        asked = read_request(await read_body(request))
        if asked.model != self.model:
            raise ApiError(404, f"The model {asked.model!r} is not here; this is {self.model!r}.", param="model")
        completion = Completion(self.agent, asked, self.seconds)
        if asked.stream:
            return await self._streamed(completion, request)
        async with self.queue.turn():
            self.metrics.waiting.set(self.queue.length)
            cancel, start = threading.Event(), time.perf_counter()
            await in_thread(lambda: list(completion.run(cancel)), cancel, request.is_disconnected)
        self._count(completion, start)
        return JSONResponse(completion.whole())

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
        toolsets = [entry.toolset.model_dump(mode="json") for entry in self.agent.bundle.manifest.toolsets]
        return JSONResponse({"model": self.model, "toolsets": toolsets})

    async def health(self, _request: Request) -> Response:
        """That the server answers, and what it serves."""
        version = metadata.version("dualtune-edge")
        return JSONResponse({"status": "ok", "model": self.model, "version": version, "waiting": self.queue.length})

    async def figures(self, _request: Request) -> Response:
        """For Prometheus."""
        self.metrics.waiting.set(self.queue.length)
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _streamed(self, completion: Completion, request: Request) -> Response:
        """Server-sent events. The first piece is made before the status is sent: an error has its own."""
        cancel, start = threading.Event(), time.perf_counter()
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(self.queue.turn())
        chunks = pieces_in_thread(completion.chunks(completion.run(cancel)), cancel, request.is_disconnected)
        stack.push_async_callback(chunks.aclose)
        try:
            first = [await anext(chunks), await anext(chunks)]  # the role, and what the engine has to say
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stack.aclose()
            raise

        async def events() -> AsyncIterator[bytes]:
            try:
                for chunk in first:
                    yield _event(chunk)
                async for chunk in chunks:
                    yield _event(chunk)
                yield _DONE
            except EdgeError as error:
                yield _event(ApiError.of(error).body)
            except ClientGoneError:
                return
            finally:
                with anyio.CancelScope(shield=True):  # a client that left cancels what it waited for, not this
                    await stack.aclose()
                self._count(completion, start)

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    def _count(self, completion: Completion, start: float) -> None:
        seconds = time.perf_counter() - start
        self.metrics.seconds.observe(seconds)
        usage = completion.usage()
        self.metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
        self.metrics.tokens.labels("cached").inc(usage["prompt_tokens_details"]["cached_tokens"])
        self.metrics.tokens.labels("written").inc(usage["completion_tokens"])
        self.log.completed(completion, seconds)

    def _model(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self.started, "owned_by": "dualtune-edge"}

    def _guarded(self, path: str, work: Endpoint) -> Endpoint:
        """The endpoint behind the guard, with every error as OpenAI's object."""

        async def endpoint(request: Request) -> Response:
            try:
                self.guard.check(request)
                response = await work(request)
            except ApiError as error:
                response = JSONResponse(error.body, error.status, headers=error.headers)
            except EdgeError as error:
                answer = ApiError.of(error)
                response = JSONResponse(answer.body, answer.status)
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


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
