"""
Bytewax: keyed state in memory, snapshots of an epoch's changes in SQLite.

It commits no offsets to Kafka: offsets are part of its snapshots. It runs as `python -m bytewax.run` does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
from bytewax import operators as op
from bytewax.connectors.kafka import operators as kop
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from tests.bench.stream.peer import Progress, Task
from tests.bench.stream.records import fold_of

_BATCH = 5_000


def _flow(task: Task) -> Any:
    progress = Progress(task.progress_file)
    fold = fold_of(task)
    loads = orjson.loads

    def keyed(message: Any) -> tuple[str, Any]:
        # A fold is not told its key, which the vectors in memory go by.
        return message.key.decode(), (message.key, message.partition, message.offset, loads(message.value))

    def update(record: bytes | None, told: Any) -> tuple[bytes, list[None]]:
        key, partition, offset, event = told
        progress.reached(partition, offset + 1)
        return fold(key, record, event["ts"], int(event["item_id"][1:])), []

    flow = Dataflow("job")
    source = kop.input(
        "in", flow, brokers=[task.bootstrap], topics=[task.topic], batch_size=_BATCH,
        add_config={"queued.min.messages": "500000", "fetch.message.max.bytes": str(8 << 20)},
    )  # fmt: skip
    events = op.map("keyed", source.oks, keyed)
    # A flow must end in a sink; nothing ever reaches this one.
    op.output("out", op.stateful_flat_map("fold", events, update), StdOutSink())
    return flow


def main() -> None:
    """Run until killed."""
    task = Task.from_environment()
    snapshots = task.folder / "snapshots"
    if not snapshots.exists():
        snapshots.mkdir(parents=True)
        init_db_dir(snapshots, 1)
    cli_main(
        _flow(task), epoch_interval=timedelta(seconds=task.commit_s), recovery_config=RecoveryConfig(str(snapshots))
    )


if __name__ == "__main__":
    main()
