"""What the signals worker keeps, in plain loops over one event at a time: the oracle of its compiled code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from models.decay import epoch_share
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.signals.popularity import demand_weights
from streams.wire.signals import decode_item_events

_KEPT = 256
_KEPT_EPOCHS = 24
_DAY_MS = 86_400_000


@dataclass
class Place:
    """A target that is counted."""

    target: Hashable
    weight: float
    error: float = 0.0


@dataclass
class Row:
    """One row: its weights count in full at the begin of `epoch`."""

    epoch: int
    total: float = 0.0
    places: list[Place] = field(default_factory=list)


class PlainHitters:
    """Decayed Space-Saving as `models.heavy_hitters` describes it, over any rows and targets."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, Row] = {}

    def learn(self, name: Hashable, target: Hashable, epoch: int, weight: float) -> None:
        """Count one pair of a weight at the begin of its epoch."""
        row = self.rows.setdefault(name, Row(epoch))
        if epoch <= row.epoch - _KEPT_EPOCHS:
            return
        if epoch > row.epoch:
            left = 2.0 ** (row.epoch - epoch)
            row.epoch, row.total = epoch, row.total * left
            row.places = [Place(place.target, place.weight * left, place.error * left) for place in row.places]
        weight *= 2.0 ** (epoch - row.epoch)
        row.total += weight
        for place in row.places:
            if place.target == target:
                place.weight += weight
                return
        if len(row.places) < _KEPT:
            row.places.append(Place(target, weight))
            return
        lightest = min(row.places, key=lambda place: place.weight)
        lightest.target, lightest.error = target, lightest.weight
        lightest.weight += weight

    def counted(self, name: Hashable) -> tuple[int, float, list[tuple[Hashable, float, float]]]:
        """Return (epoch, total, places) of a row."""
        row = self.rows.get(name, Row(0))
        return row.epoch, row.total, [(place.target, place.weight, place.error) for place in row.places]


class PlainSignals:
    """What the owner of a partition makes of its records, event by event."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self.hitters = PlainHitters()
        self.events: Counter[str] = Counter()
        #: By item, part of the day and code of the device: epoch to the sum of shares.
        self.demand: defaultdict[tuple[str, int, int], Counter[int]] = defaultdict(Counter)
        self._settings = settings
        self._partition = partition

    def _owns(self, item_id: str) -> bool:
        return partition_of(item_id.encode(), self._settings.partitions) == self._partition

    def fold(self, value: bytes) -> None:
        """Take in one record of `item-events`."""
        weights = demand_weights(self._settings)
        events = decode_item_events(value)
        columns = (events.item, events.type_code, events.ts_ms, events.previous, events.device)
        for item, type_code, ts_ms, previous, device in zip(*(column.tolist() for column in columns), strict=True):
            item_id = events.ids[item]
            if self._owns(item_id):
                self.events[item_id] += 1
                part = ts_ms % _DAY_MS * self._settings.day_parts // _DAY_MS
                epoch, share = epoch_share(ts_ms, weights[type_code], self._settings.half_life_popularity_s)
                self.demand[item_id, part, device][epoch] += share
            met: set[str] = {item_id}
            pairs: list[tuple[int, str]] = []
            for distance, index in enumerate(previous, 1):
                before = events.ids[index] if index >= 0 else item_id
                if before not in met and weights[type_code] > 0:
                    pairs.append((distance, before))
                met.add(before)
            for forth in (True, False):
                for distance, before in pairs:
                    name, target = (before, item_id) if forth else (item_id, before)
                    if self._owns(name):
                        weight = 1 / distance if forth else 0.5 / distance
                        epoch, share = epoch_share(ts_ms, weight, self._settings.half_life_followers_s)
                        self.hitters.learn(name, target, epoch, share / 2**30)

    def in_segments(self, item_id: str, now_ms: int) -> list[float]:
        """Return what is published: by part of the day and device, untold, each named one, all others."""
        half_life_ms = self._settings.half_life_popularity_s * 1000
        masses = []
        for part in range(max(self._settings.day_parts, 1)):
            for device in (0, *range(1, len(self._settings.user_devices) + 1), 255):
                sums = self.demand[item_id, part, device]
                oldest = max(sums, default=0) - _KEPT_EPOCHS
                kept = [
                    share * 2.0 ** (epoch - now_ms / half_life_ms) for epoch, share in sums.items() if epoch > oldest
                ]
                masses.append(sum(kept) / 2**30)
        return masses

    def followers(self, item_id: str) -> list[tuple[str, float]]:
        """Return what is published: the heaviest 64 by what is certain, as shares."""
        _, total, places = self.hitters.counted(item_id)
        heaviest = sorted(places, key=lambda place: place[2] - place[1])[:64]
        shares = [(str(target), round((weight - error) / total, 6)) for target, weight, error in heaviest]
        return [(target, share) for target, share in shares if share > 0]
