"""
Fitting item-to-item weights in the background: all of `item-events` enters, a `Fit` leaves from time to time.

Each signals process reads every partition, because two items of one history mostly lie in two partitions, and
publishes the rows of the items it owns; so no process waits for another. What is fitted is a function of the events
within the window: after a restart they are read again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import structlog
import torch
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from models import ease, local_ease
from streams import metrics
from streams.errors import DependencyError, FreshetError, RecordFormatError
from streams.kafka.bulk_read import reader
from streams.kafka.passing import passes
from streams.settings import Settings
from streams.signals.histories import Histories
from streams.signals.popularity import demand_weights
from streams.signals.routing import item_partitions
from streams.topics import full_name
from streams.wire.neighbours import MAX_NEIGHBOURS, Neighbour
from streams.wire.signals import decode_item_events

_LOG = structlog.get_logger(__name__)

#: Records taken at once; each holds up to 1 MB.
_BATCH = 200
#: Longest sleep in Kafka's client, so that a stop is seen soon.
_POLL_S = 0.2
#: The weakest claim on a core there is.
_NICE = 19
#: A fit by drift comes no sooner than this share of the interval after the last.
_SOONEST = 0.1
_DECIMALS = 6
#: Items that each one is fitted on where the inverse would be too large. A year of groceries needs no 400.
_SUPPORT = 200


class Fit(NamedTuple):
    """
    Item-to-item weights of n items.

    Attributes
    ----------
    ids
        The items.
    partitions
        (n,) int32: who owns each item, and publishes its row.
    weights
        See `models.ease.Weights`; targets are indices into `ids`.

    """

    ids: list[str]
    partitions: npt.NDArray[np.int32]
    weights: ease.Weights

    def neighbours(self, place: int) -> tuple[Neighbour, ...]:
        """Return (item id, weight) of an item's row, the weight farthest from 0 first."""
        targets = self.weights.targets[place].tolist()
        weights = self.weights.weights[place].astype(np.float64).round(_DECIMALS).tolist()
        pairs = zip(targets, weights, strict=True)
        return tuple((self.ids[target], weight) for target, weight in pairs if target >= 0 and weight)


def fit_histories(histories: Histories, settings: Settings, partitions: int) -> Fit:
    """
    Fit the weights of what is held now: the items that most users met, at most `neighbours_max_items`.

    Up to `neighbours_dense_items` by a dense inverse, beyond by a system of equations for each item. Items that are not
    among the most met have followers alone.

    Raises
    ------
    ValueError
        When the regularisation is too small for the histories.

    """
    ids, matrix = histories.matrix(settings.neighbours_max_items)
    regularisation = settings.neighbours_regularisation
    if len(ids) <= settings.neighbours_dense_items:
        weights = ease.fit(ease.co_occurrences(matrix, len(ids)), regularisation, MAX_NEIGHBOURS)
    else:
        weights = local_ease.fit_local(matrix, len(ids), regularisation, _SUPPORT, MAX_NEIGHBOURS)
    return Fit(ids, item_partitions(ids, partitions), weights)


class Fitter:
    """
    A thread that follows `item-events` and fits.

    It fits when what lay there at the start was read, then at the interval where anything changed, and by drift.

    Attributes
    ----------
    latest
        The newest fit; None before the first.
    error
        Why the thread ended; None while all is well.

    """

    def __init__(self, settings: Settings, partitions: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.latest: Fit | None = None
        self.error: Exception | None = None
        self.histories = Histories(settings.neighbours_max_users, settings.neighbours_history)
        self._settings = settings
        self._partitions = partitions
        self._clock = clock
        self._topic = full_name(settings, "item-events")
        self._is_demand = np.array(demand_weights(settings)) > 0
        self._unread = set(range(partitions))
        self._fitted_at: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="neighbours-fitter", daemon=True)

    def start(self) -> None:
        """Start the thread; returns at once."""
        self._thread.start()

    def stop(self, deadline_s: float = 2.0) -> None:
        """Ask the thread to end and wait for it, at most `deadline_s`; a fit under way dies with the process."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def _run(self) -> None:
        # One core at most, and only what nothing else wants of it: nobody waits for a fit. Linux has this by thread.
        torch.set_num_threads(1)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            # Fits take minutes at most; a day is the longest silence that librdkafka allows.
            consumer = reader(
                self._settings, queued_min_messages=1_000, queued_max_messages_kbytes=16_384,
                max_poll_interval_ms=86_400_000,
            )  # fmt: skip
            try:
                consumer.assign(self._starts(consumer))
                while not self._stopping.is_set():
                    self._step(consumer)
            finally:
                consumer.close()
        except FreshetError as error:
            self.error = error
        except KafkaException as error:
            self.error = DependencyError(f"following item-events failed: {error.args[0]}")
        except Exception as error:  # noqa: BLE001 -- a thread has nobody to raise to; the role reads `error` and ends
            _LOG.exception("neighbours fitter died")
            self.error = error

    def _starts(self, consumer: Consumer) -> list[TopicPartition]:
        """Return each partition's first record within the window; its end where there is none."""
        since_ms = round((time.time() - self._settings.neighbours_window_s) * 1_000)
        wanted = [TopicPartition(self._topic, number, since_ms) for number in range(self._partitions)]
        return list(consumer.offsets_for_times(wanted, timeout=self._settings.kafka_timeout_s))

    def _step(self, consumer: Consumer) -> None:
        """Read what is there, wait a moment where nothing is, and fit where a fit is due."""
        # `consume` alone waits until its batch is full; `poll` returns with the first record.
        first = consumer.poll(_POLL_S)
        if first is not None:
            self.take([first, *consumer.consume(_BATCH - 1, timeout=0)])
        if self._is_due():
            self._fit()

    def take(self, messages: Sequence[Message]) -> None:
        """Join the events of records, each where its item lies; damaged records are the partition's to tell."""
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
                    self._unread.discard(message.partition())
                elif not passes(error):
                    raise DependencyError(f"following item-events failed: {error.str()}")
                continue
            self.join(message.value() or b"", message.partition())

    def join(self, value: bytes, partition: int) -> None:
        """Join the events of one record of a partition; a damaged one is passed over."""
        try:
            events = decode_item_events(value)
        except RecordFormatError:
            return
        owners = item_partitions(events.ids, self._partitions)
        own = owners[events.item] == partition
        self.histories.add(events, own & self._is_demand[events.type_code])

    def _is_due(self) -> bool:
        changes = self.histories.changes
        if self._unread or not changes:
            return False
        if self._fitted_at is None:
            return True
        passed_s, interval_s = self._clock() - self._fitted_at, self._settings.neighbours_refit_interval_s
        if passed_s >= interval_s:
            return True
        drifted = changes >= self._settings.neighbours_refit_drift * self.histories.held
        return drifted and passed_s >= _SOONEST * interval_s

    def _fit(self) -> None:
        started = self._clock()
        self.histories.changes = 0
        try:
            fit = fit_histories(self.histories, self._settings, self._partitions)
        except ValueError as error:
            metrics.FITS.labels("failed").inc()
            _LOG.error("neighbours_not_fitted", error=str(error))
        else:
            self.latest = fit
            metrics.FITS.labels("ok").inc()
            metrics.FIT_ITEMS.set(len(fit.ids))
            metrics.FIT_USERS.set(len(self.histories))
            _LOG.info("neighbours_fitted", items=len(fit.ids), users=len(self.histories))
        self._fitted_at = self._clock()
        metrics.FIT_SECONDS.observe(self._fitted_at - started)
