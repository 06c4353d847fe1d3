"""
A batched transport for Faust: one agent event is one partition's run of records.

Stock Faust pays 70 to 100 microseconds a record before the agent sees it: four asyncio tasks to stay interruptible,
a decode, a queue, an acknowledgement. This transport pays that once a run. It plugs in through Faust's own entry
point (`faust.transports`), so an app uses it by its broker address::

    app = faust.App("shop", broker="freshet://127.0.0.1:9092")


    @app.agent(batched_topic(app, "clicks", "views"))
    async def fold(runs):
        async for run in runs:
            for record in run.records:
                ...  # key, value, offset, timestamp as bytes and ints
            run.done()

It needs Faust, aiokafka, NumPy and numba, and nothing else of Freshet but its errors and numba's decorator.

Interface
---------
`batched_topic(app, *names)`
    A topic whose agent receives `Run`s. With `caller_commits=True` the caller commits its offsets.
`Run`
    `topic`, `partition`, `records`, `generation`, and `done()`.
`Records`
    The records of a run, a sequence of `Record`s. They are read in place: an object is made of a record only when it is
    asked for, and `Records.table` and `Records.pool` give all of them to NumPy or to compiled code.
`app.consumer`, a `Consumer`
    `release`, `hold`, `remaining`, `on_out_of_range` and `go_on_from` for callers that commit; `fenced`; `commit`,
    `pause_partitions` and `resume_partitions` as in Faust.
`app.transport`, a `Transport`
    `max_buffered_runs` bounds memory; `fetch_pause_s` is how long records that trickle in are gathered.
`check_versions()`
    Refuses a Faust or an aiokafka that this was not checked with; making a transport calls it.

Contract
--------
1. Records of one partition arrive in offset order, each run from one partition; within a group generation no record
   arrives twice, unless the caller seeks.
2. `run.done()` says that everything the run causes is durable: await what you send before you call it. Faust's commit
   timer (`broker_commit_interval`), a rebalance, the end of the app and `app.consumer.commit()` then commit up to the
   first run that is not done, and never past it. So a record is seen at least once, also across kill -9.
3. A run that is never done holds its partition: nothing behind it is committed, after the next run nothing is
   fetched, and after `stream_processing_timeout` an error names it. Faust restarts an agent that raised and goes on
   with the next run; `agent_supervisor=mode.CrashingSupervisor` ends the app instead, and the next start begins there.
4. At most two runs of a partition are out, and above `max_buffered_runs` nothing is fetched: memory holds so many runs
   and one more of each partition. A run has at most `broker_max_poll_records` records, and comes from one fetch of at
   most `consumer_max_fetch_size` bytes. Waiting ends as soon as a run is done.
5. On revoke Faust clears the agents' queues; the runs that agents are working on may end (`stream_wait_empty`) and what
   is done is committed before the group forms anew. No run of a former generation is handed over, and calling `done()`
   on one has no effect.
6. With `caller_commits=True` nothing is committed: offsets belong to the caller, who commits them with what they
   caused (in a transaction, say). A newly assigned partition is held until `Consumer.release` says where to go on.
7. A paused partition is not fetched; what a fetch under way brings is still handed over.
8. Topics not made by `batched_topic` are delivered record by record and committed as by stock Faust.
9. The app's consumer reads committed records only; transactions that were aborted are never seen.
10. When Kafka does not have the next offset of a released partition, `Consumer.on_out_of_range` is told, and nothing is
   fetched from it until `go_on_from`. Without it, and for other topics, `consumer_auto_offset_reset` decides silently.
11. A static member (`consumer_group_instance_id`) that another process replaces crashes the app; `Consumer.fenced` says
   why.

What stands in the way of a consumer's progress in Faust 0.15 and how this avoids it is told by the regression tests
in tests/integration/test_transport_kafka.py and tests/unit/test_transport.py, by issue number.
"""

from __future__ import annotations

from streams.kafka.transport.consumer import Consumer
from streams.kafka.transport.plugin import Transport, batched_topic, check_versions
from streams.kafka.transport.records import Record, Records
from streams.kafka.transport.runs import Run

__all__ = ["Consumer", "Record", "Records", "Run", "Transport", "batched_topic", "check_versions"]
