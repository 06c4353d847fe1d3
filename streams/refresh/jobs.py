"""Lists that are to be made: what each tells of how it was made, copied on the loop before a thread makes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from models.users import Users
from streams.catalogue.matrix import Catalogue
from streams.experiments.assignment import Experiments
from streams.refresh.compose import compose
from streams.refresh.dirty import Cause
from streams.refresh.partition import InterestPartition
from streams.refresh.rank import Ranked
from streams.refresh.shelf import Origin
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import IMPRESSION
from streams.wire.recommendations import AsOf, Assigned

_IMPRESSIONS = EVENT_TYPES[IMPRESSION]


class Job(NamedTuple):
    """One list to be made."""

    partition: InterestPartition
    user_id: str
    surface: str
    cause: Cause
    version: int
    as_of: AsOf
    experiments: dict[str, Assigned]
    events_applied: dict[str, int]
    event_ts_ms: int
    model: str

    @property
    def interactions(self) -> int:
        """How many interactions the list is made of: impressions change no list."""
        return sum(self.events_applied.values()) - self.events_applied.get(_IMPRESSIONS, 0)

    @property
    def origin(self) -> Origin:
        """What the list tells of how it was made, as it is kept with it."""
        return Origin(self.surface, self.model, self.event_ts_ms, self.as_of, self.experiments, self.events_applied)


class Made(NamedTuple):
    """A list, composed and encoded; `at` is its place in the batch."""

    job: Job
    at: int
    generated_at_ms: int
    item_ids: Sequence[str]
    price_marks: tuple[int, ...]
    explored: tuple[int, int]
    value: bytes


class Jobs:
    """
    Makes jobs, and lists of them what is published; each job takes its partition's next version.

    Parameters
    ----------
    clock
        Seconds since the epoch; the time written on lists.

    """

    def __init__(self, settings: Settings, catalogue: Catalogue, clock: Callable[[], float]) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._policy = settings.policy
        self._main_surface = settings.surfaces[0]

    def ranked(
        self, taken: Sequence[tuple[InterestPartition, str, Cause]], experiments: Experiments
    ) -> tuple[list[Job], list[Users]]:
        """Return what to make for users who are owed a list, and from what: of each partition, in the jobs' order."""
        by_partition: defaultdict[InterestPartition, list[tuple[str, Cause]]] = defaultdict(list)
        for partition, user_id, cause in taken:
            if not partition.closed:
                by_partition[partition].append((user_id, cause))
        jobs: list[Job] = []
        parts: list[Users] = []
        for partition, owed in by_partition.items():
            found = [(user_id, cause, partition.slab.row(user_id)) for user_id, cause in owed]
            known = [(user_id, cause, row) for user_id, cause, row in found if row is not None]
            if known:
                more, users = self._of_partition(partition, known, experiments)
                jobs.extend(more)
                parts.append(users)
        return jobs, parts

    def _of_partition(
        self, partition: InterestPartition, known: Sequence[tuple[str, Cause, int]], experiments: Experiments
    ) -> tuple[list[Job], Users]:
        slab = partition.slab
        rows = np.array([row for _, _, row in known], np.int64)
        assigned = [experiments.assign(user_id) for user_id, _, _ in known]
        users = partition.vectors.users(
            rows,
            [experiments.parameters(parts) for parts in assigned],
            [cause.kind != "event" for _, cause, _ in known],
        )
        # A vector that came late is the effect of an earlier event.
        users.previous.moved[[cause.kind == "catalogue" for _, cause, _ in known]] = True
        as_of, model = self._as_of(partition), self._model
        jobs = [
            Job(
                partition, user_id, self._main_surface, cause, partition.next_version(), as_of, parts,
                events_applied, event_ts_ms, model,
            )
            for (user_id, cause, _), parts, events_applied, event_ts_ms in zip(
                known, assigned, slab.events_applied(rows), users.now_ms.tolist(), strict=True
            )
        ]  # fmt: skip
        return jobs, users

    def struck(self, partition: InterestPartition, user_id: str, origin: Origin) -> Job:
        """Return what to make out of a list that stays what it was, but for what the rules let stand on it now."""
        as_of = msgspec.structs.replace(origin.as_of, rules=self._catalogue.offer.revision)
        return Job(
            partition, user_id, origin.surface, Cause("rules"), partition.next_version(), as_of, origin.experiments,
            origin.events_applied, origin.event_ts, origin.model,
        )  # fmt: skip

    def default(self, partition: InterestPartition, surface: str) -> Job:
        """Return the list of a surface for visitors without events."""
        as_of = self._as_of(partition)
        return Job(
            partition, "", surface, Cause("interval"), partition.next_version(), as_of, {}, {}, 0, self._model
        )  # fmt: skip

    def composed(self, jobs: Sequence[Job], lists: Sequence[Ranked]) -> list[Made]:
        """Return the lists as they are published; used from any thread."""
        return [self._compose(job, ranked, at) for at, (job, ranked) in enumerate(zip(jobs, lists, strict=True))]

    def _compose(self, job: Job, ranked: Ranked, at: int) -> Made:
        generated_at_ms = round(self._clock() * 1000)
        recommendation = compose(
            ranked,
            user_id=job.user_id,
            surface=job.surface,
            partition=job.partition.partition,
            version=job.version,
            generated_at_ms=generated_at_ms,
            event_ts_ms=job.event_ts_ms,
            ingested_at_ms=job.cause.ingested_ms,
            policy=self._policy,
            model=job.model,
            as_of=job.as_of,
            experiments=job.experiments,
            trigger=job.cause.trigger(job.partition.partition),
            events_applied=job.events_applied,
        )
        return Made(
            job, at, generated_at_ms, ranked.item_ids, ranked.price_marks, ranked.explored, recommendation.encode()
        )  # fmt: skip

    @property
    def _model(self) -> str:
        """The fingerprint of the served vector space; empty while none is known."""
        return self._catalogue.served.fingerprint if self._catalogue.served else ""

    def _as_of(self, partition: InterestPartition) -> AsOf:
        return AsOf(
            offsets=dict(partition.owner.consumed),
            catalogue=self._catalogue.revision,
            signals=self._catalogue.signals_revision,
            rules=self._catalogue.offer.revision,
        )
