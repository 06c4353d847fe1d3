"""
Stock Faust: `event` and `take` read JSON and nothing else, `table` does the whole job in a table.

`take` cannot write tables (faust-streaming #497), so the whole job runs event by event.
"""

from __future__ import annotations

from typing import Any

import faust
import orjson

from tests.bench.stream.peer import Progress, Task
from tests.bench.stream.records import fold_of

_TAKE = 5_000
_TAKE_WITHIN_S = 0.02


def _app(task: Task) -> Any:
    """Return an app with every setting that is known to make stock Faust faster, and none that loses records."""
    app = faust.App(
        task.group,
        broker=f"kafka://{task.bootstrap}",
        store="memory://",
        datadir=str(task.folder),
        value_serializer="raw",
        topic_partitions=task.partitions,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        stream_buffer_maxsize=131_072,
        broker_commit_every=200_000,
        broker_commit_interval=task.commit_s,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 << 20,
        producer_linger=0.02,
        producer_max_batch_size=512 << 10,
        producer_compression_type="lz4",
    )
    app.producer.buffer.max_messages = 10_000
    return app


def _agent(app: Any, task: Task) -> Any:
    progress = Progress(task.progress_file)
    loads = orjson.loads

    async def by_event(stream: Any) -> None:
        async for event in stream.events():
            progress.add(1, int(loads(event.value)["item_id"][1:]))

    async def by_take(stream: Any) -> None:
        async for values in stream.take(_TAKE, within=_TAKE_WITHIN_S):
            items = [int(loads(value)["item_id"][1:]) for value in values]
            progress.add(len(items), sum(items))

    if task.variant == "event":
        return by_event
    if task.variant == "take":
        return by_take
    table = app.Table("state", key_type=bytes, value_type=bytes, partitions=task.partitions)
    fold = fold_of(task)

    async def by_table(stream: Any) -> None:
        async for event in stream.events():
            values = loads(event.value)
            key = event.key
            table[key] = fold(key, table.get(key), values["ts"], int(values["item_id"][1:]))

    return by_table


def main() -> None:
    """Run until killed."""
    task = Task.from_environment()
    app = _app(task)
    topic = app.topic(task.topic, key_type=bytes, value_type=bytes, partitions=task.partitions)
    app.agent(topic)(_agent(app, task))
    faust.Worker(app, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    main()
