"""Compiling what the worker runs, before it runs: a first fold that compiles would stop the loop for seconds."""

from __future__ import annotations

import numpy as np

from models.ranking import RankingParameters
from streams.catalogue.matrix import Catalogue
from streams.interests.arenas import move_recent, move_tallies
from streams.interests.budget import Budget
from streams.interests.ingest import Ingest
from streams.interests.marks import Marks
from streams.interests.slab import Slab
from streams.interests.vectors import InterestVectors
from streams.kafka.alignment import Slice
from streams.kafka.transport import Record, Records, Run
from streams.kafka.transport.records import read_batch
from streams.settings import Settings
from streams.signals.routing import routed
from streams.topics import full_name
from streams.wire.signals import ItemEvent, item_events

_NOW_MS = 1_700_000_000_000
#: More than the first table of ids holds.
_USERS = 600
#: One record without key, value and headers: its length, attributes, two deltas, two sizes of -1, no headers.
_BATCH = bytes((12, 0, 0, 0, 1, 1, 0))


def warm() -> None:
    """Read, fold, write, forget, thaw, gather and tell users in a slab of its own: that calls all that is compiled."""
    settings = Settings()
    read_batch(_BATCH, 1, 0, _NOW_MS, log_append=False)
    value = b'{"event_id":"e","user_id":"%d","item_id":"i","ts":%d}'
    records = [Record(user, _NOW_MS, b"%d" % user, value % (user, _NOW_MS)) for user in range(_USERS)]
    run = Run(full_name(settings, "clicks"), 0, Records.of(records))
    ingest = Ingest(settings, 0, 1, Marks(Budget(1, 1)))
    slab = Slab(settings, Catalogue(1))
    slab.fold(ingest.decode([Slice(run, run.records, last=True)]).batch)
    InterestVectors(slab).users(np.zeros(1, np.int64), [RankingParameters()])
    record = slab.encode("0")
    slab.restore(b"0", record)
    slab.row("0")
    # A record of another version is read by plain Python, which calls these.
    move_recent(slab.store, 0, 1)
    move_tallies(slab.store, 0, 1)
    routed(item_events([ItemEvent(1, "i", 1, 1)]), np.zeros(1, np.int32))
