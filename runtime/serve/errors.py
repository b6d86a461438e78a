"""OpenAI's error object: what every client reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dualtune_edge.toolkit.errors import (
    BundleError,
    EdgeError,
    EngineError,
    RequestError,
    StoppedError,
    TemplateError,
    ToolsError,
)

_STATUS: Final[tuple[tuple[type[EdgeError], int], ...]] = (
    (RequestError, 400),
    (TemplateError, 400),
    (ToolsError, 400),
    (BundleError, 500),
    (EngineError, 500),
    (StoppedError, 504),  # its deadline is over; who cancels a call reads no answer
)
_MESSAGES: Final = "request, messages."  # before a place in them
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def parameter(place: Sequence[str | int]) -> str | None:
    """A place in a body as OpenAI writes it: `messages[0].role`; None: the body itself."""
    parts = (f"[{part}]" if str(part).isdecimal() else f".{part}" for part in place)
    return "".join(parts).removeprefix(".") or None


class ApiError(Exception):
    """An answer with an error's status. `param` names the parameter that is wrong."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after  # seconds; 0: the header is not sent

    @classmethod
    def of(cls, error: EdgeError) -> ApiError:
        """An error of the runtime's: the request's fault, or this side's."""
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        _, _, place = error.where.partition(_MESSAGES)
        param = parameter(("messages", *place.split("."))) if place else None
        return cls(status, str(error), param=param, code=type(error).__name__)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Beside the body."""
        return {"Retry-After": str(self.retry_after)} if self.retry_after else {}
