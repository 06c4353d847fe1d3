"""
Logs: events with keys, JSON on stdout, pretty on a terminal, never a raw user id.

Call `configure` once at start; modules take `structlog.get_logger()`.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from streams.settings import Settings


#: Without the frames' variables: they hold users' records, and settings with secrets.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_PRETTY_TRACEBACKS = structlog.dev.RichTracebackFormatter(show_locals=False)


def configure(settings: Settings, role: str) -> None:
    """Send structlog and the libraries' standard logging through one renderer on stdout."""
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and sys.stdout.isatty())
    who = {"role": role, **({"id": settings.role_id} if settings.role_id else {})}

    def add_who(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        # Not context variables: lines come from the libraries' own threads too.
        event.update(who)
        return event

    shared: list[structlog.typing.Processor] = [
        add_who,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=_PRETTY_TRACEBACKS)]
        if pretty
        else [_TRACEBACKS, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # These narrate every request, rebalance step or compiled statement; their warnings are what an operator needs.
    for noisy in (
        "streams.kafka.transport", "aiokafka", "faust", "mode", "kafka", "httpx", "transformers", "filelock", "numba",
    ):  # fmt: skip
        logging.getLogger(noisy).setLevel(logging.WARNING)


def pseudonym(user_id: str) -> str:
    """
    Short stand-in for a user id in log lines: the same user reads the same, the id cannot be read back at a glance.

    >>> pseudonym("u1")
    'u:2e6d1103'
    """
    return "u:" + hashlib.blake2b(user_id.encode(), digest_size=4, person=b"freshet-log").hexdigest()
