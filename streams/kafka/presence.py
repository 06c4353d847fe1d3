"""Whether Kafka is there."""

from __future__ import annotations

import asyncio
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.errors import DependencyError
from streams.settings import Settings

#: How often Kafka is asked whether it is there, and how long an answer may take.
_PROBE_INTERVAL_S = 2.0
_PROBE_TIMEOUT_S = 5.0


async def watch_kafka(settings: Settings, client: AdminClient) -> None:
    """
    Ask for ever whether Kafka answers.

    Commits tell sooner that it does not while events flow; a worker without any would wait for ever.

    Raises
    ------
    DependencyError
        When it has been away for longer than `kafka_timeout_s`.

    """
    answered = time.monotonic()
    silent = 0
    while True:
        await asyncio.sleep(_PROBE_INTERVAL_S)
        try:
            await asyncio.wrap_future(client.describe_cluster(request_timeout=_PROBE_TIMEOUT_S))
        except KafkaException as error:
            silent += 1
            # Asked twice: a process that was stopped in the middle of the first wakes to its time-out.
            if silent > 1 and time.monotonic() - answered > settings.kafka_timeout_s:
                raise DependencyError(
                    f"Kafka at {settings.kafka_bootstrap} did not answer for "
                    f"{settings.kafka_timeout_s:g} s: {error.args[0]}"
                ) from error
        else:
            answered, silent = time.monotonic(), 0
