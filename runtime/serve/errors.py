"""OpenAI's error object: what every client reads."""

from __future__ import annotations

from typing import Any, Final

from dualtune_edge.toolkit.errors import BundleError, EdgeError, EngineError, RequestError, TemplateError, ToolsError

_STATUS: Final[tuple[tuple[type[EdgeError], int], ...]] = (
    (RequestError, 400),
    (TemplateError, 400),
    (ToolsError, 400),
    (BundleError, 500),
    (EngineError, 500),
)
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


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
        return cls(status, str(error), code=type(error).__name__)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Beside the body."""
        return {"Retry-After": str(self.retry_after)} if self.retry_after else {}
