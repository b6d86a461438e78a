"""Who may talk to the endpoint: hosts, origins, a key and the size of a body, before anything of a request is read.

A web page can send requests to a loopback address, and by DNS rebinding even under its own name. So the Host header
has to name an address that the server listens on, and an Origin has to be the server's own, or one that was allowed.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from dualtune_edge.runtime.serve.errors import ApiError

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
BODY_BYTES: Final = 4_000_000


@dataclass(frozen=True)
class Guard:
    """The rules of one server.

    Args:
        hosts: names and addresses under which it is reached.
        origins: other pages that may use it; each as a browser sends it, `https://app.example`.
        key: that every request has to bring as a bearer token; None: none.

    """

    hosts: Collection[str] = LOOPBACK
    origins: Collection[str] = ()
    key: str | None = None

    def check(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            ApiError: 403 for another Host or Origin, 401 without the key.

        """
        self.check_place(request)
        if self.key is not None:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self.key.encode()):
                raise ApiError(401, "No API key, or a wrong one.", code="invalid_api_key")

    def check_place(self, request: Request) -> None:
        """Refuse another Host or Origin: what a browser asks before a request, which brings no key.

        Raises:
            ApiError: 403.

        """
        host = request.headers.get("host", "")
        if _name(host) not in self.hosts:
            raise ApiError(403, f"This server is not {host!r}.", code="unknown_host")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != host:
            raise ApiError(403, f"Pages of {origin!r} may not use this server.", code="unknown_origin")

    def headers(self, request: Request) -> dict[str, str]:
        """What lets an allowed page of another origin read the answer."""
        origin = request.headers.get("origin")
        if origin is None or origin not in self.origins:
            return {}
        names = {
            "Access-Control-Allow-Origin": origin,
            "Vary": "Origin",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        if request.method != "OPTIONS":
            return names
        asked = request.headers.get("access-control-request-headers", "")
        return names | {"Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Allow-Headers": asked}


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413: it is larger than `BODY_BYTES`.

    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            raise ApiError(413, f"The body has more than {BODY_BYTES} bytes.")
    return bytes(body)


def _name(host: str) -> str:
    """The host without its port: `[::1]:8000` is `::1`."""
    return (urlsplit(f"//{host}").hostname or "") if host and "@" not in host else ""
