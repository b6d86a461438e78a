"""The HTTP server around a service."""

from __future__ import annotations

import uvicorn

from dualtune_edge.runtime.serve.app import Service


class Server(uvicorn.Server):
    """Says where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and write the ready line."""
        await super().startup(sockets)  # type: ignore[arg-type]
        for server in self.servers:
            for bound in server.sockets:
                address, port, *_ = bound.getsockname()
                url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
                self._service.log.write({"event": "ready", "url": url, "model": self._service.model})
