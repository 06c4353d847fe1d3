"""Quix Streams: keyed state in RocksDB with a changelog; the variant is its processing guarantee."""

from __future__ import annotations

from typing import Any

import orjson
from quixstreams import Application

from tests.bench.stream.peer import Task
from tests.bench.stream.records import fold_of

_KEY = "s"


def main() -> None:
    """Run until killed."""
    task = Task.from_environment()
    fold = fold_of(task)
    app = Application(
        broker_address=task.bootstrap,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_interval=task.commit_s,
        processing_guarantee=task.variant,
        state_dir=task.folder,
        producer_extra_config={"compression.type": "lz4", "linger.ms": 20},
        consumer_extra_config={"queued.min.messages": 500_000, "fetch.message.max.bytes": 8 << 20},
        loglevel="WARNING",
    )
    events = app.topic(task.topic, key_deserializer="bytes", value_deserializer="bytes")
    loads = orjson.loads

    def update(value: bytes, key: bytes, _timestamp: int, _headers: Any, state: Any) -> None:
        event = loads(value)
        state.set_bytes(_KEY, fold(key, state.get_bytes(_KEY), event["ts"], int(event["item_id"][1:])))

    app.dataframe(events).update(update, stateful=True, metadata=True)
    app.run()


if __name__ == "__main__":
    main()
