"""The page: three files of this package, with headers that let nothing else be loaded."""

from __future__ import annotations

from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src data:; script-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def page_file(request: Request) -> Response:
    """The file that stands at the request's path."""
    name, kind = FILES[request.url.path]
    data = (resources.files("dualtune_edge.runtime.serve") / "page" / name).read_bytes()
    return Response(data, media_type=kind, headers=_HEADERS)
