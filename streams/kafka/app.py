"""The Faust app of a streaming role, with every option that Freshet sets and why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import faust
from yarl import URL

from streams.kafka.clients import ssl_context
from streams.settings import Settings

#: Heartbeats per session timeout, as Kafka's documentation advises no more than a third; more tell a loss sooner.
HEARTBEAT_SHARE = 0.1


def make_app(settings: Settings, role: str, folder: Path) -> faust.App:
    """Return the app of a role on the batched transport; `folder` is where Faust may put what it thinks it needs."""
    app = faust.App(
        settings.group(role),
        broker=[URL(f"freshet://{address}") for address in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(settings),
        broker_session_timeout=settings.kafka_session_timeout_s,
        broker_heartbeat_interval=settings.kafka_session_timeout_s * HEARTBEAT_SHARE,
        # A stuck loop is seen by liveness long before; Faust's default of 1,000 s would keep the partitions.
        broker_max_poll_interval=300.0,
        broker_max_poll_records=settings.max_poll_records,
        broker_request_timeout=max(90.0, settings.kafka_session_timeout_s),
        consumer_auto_offset_reset="earliest",
        # New partitions are noticed as late as this, and so are topics that a broker which has just started did not
        # know of when it was asked for an assignment; aiokafka's default is 5 minutes.
        consumer_metadata_max_age_ms=10_000,
        consumer_group_instance_id=settings.kafka_group_instance_id or None,
        # Faust's assignor writes this address into every assignment and asserts that it finds its own there. A static
        # member is given its old assignment back, and its host may have another name by then.
        canonical_url="http://freshet",
        # Without standbys Faust would take a round-robin assignor, which moves partitions that need not move.
        table_standby_replicas=1,
        # Above one run a partition: the transport bounds runs itself, Faust's queue must never be the limit.
        stream_buffer_maxsize=16_384,
        # The transport's topics are not acknowledged; there is nothing to wait for.
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
        datadir=folder,
        loop=asyncio.get_running_loop(),
    )
    app.transport.max_buffered_runs = settings.max_buffered_runs
    return app


def _credentials(settings: Settings) -> Any:
    context = ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
