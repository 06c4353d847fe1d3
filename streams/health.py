"""
/livez, /readyz and /metrics on a port of their own, in a thread of their own.

A busy event loop must not make a probe fail, and a dead one must not make it pass: liveness asks the callable the
role gives, which looks at the loop's last heartbeat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
import structlog
from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from streams.settings import Settings

Check = Callable[[], tuple[bool, dict[str, Any]]]

_LOG = structlog.get_logger(__name__)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # A probe that hangs up early is no event for the log.
    block_on_close = False


class _QuietHandler(WSGIRequestHandler):
    #: A client that stops mid-request frees its thread after this long.
    timeout = 5

    def log_message(self, *args: object) -> None:
        """Say nothing: probes come every few seconds."""


class HealthServer:
    """Serves the three pages until stopped; every other path is 404."""

    def __init__(self, settings: Settings, *, live: Check, ready: Check) -> None:
        self._host, self._port = settings.health_host, settings.health_port
        self._checks = {"/livez": live, "/readyz": ready}
        self._metrics = make_wsgi_app()
        self._server: WSGIServer | None = None

    def start(self) -> int:
        """Listen and return the port."""
        self._server = make_server(
            self._host, self._port, self._serve, server_class=_Server, handler_class=_QuietHandler
        )
        port = int(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        _LOG.info("health_listening", host=self._host, port=port)
        return port

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return cast("Iterable[bytes]", self._metrics(environ, start_response))
        check = self._checks.get(path)
        if check is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/livez /readyz /metrics\n"]
        healthy, details = check()
        status = "200 OK" if healthy else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [orjson.dumps({"ok": healthy, **details})]
