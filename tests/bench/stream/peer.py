"""What a peer is told, and how it tells its progress where it commits no offsets: shared by all Python peers."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

#: One prefix for the environment of Python and Java peers.
_PREFIX = "BENCH_"
_COUNTS = struct.Struct("<QQ")


@dataclass(frozen=True)
class Task:
    """
    One run of one peer.

    Attributes
    ----------
    topic, group, changelog
        What to consume, as which group or application, and where a peer without a changelog of its own writes one.
    record
        `vector` or `compact`; see `records`.
    variant
        The peer's own switch: a store, a guarantee, an agent.
    table_file
        Item vectors, float32.
    progress_file
        16 bytes for `Progress`.
    sample_file
        Where a peer with compact records leaves the vectors of some users; see `records.sample_of`.
    folder
        The peer's own state on disk.

    """

    bootstrap: str
    topic: str
    group: str
    changelog: str
    record: str
    variant: str
    partitions: int
    commit_s: float
    table_file: Path
    progress_file: Path
    sample_file: Path
    folder: Path

    def environment(self) -> dict[str, str]:
        """Return the variables that say this to a peer."""
        return {_PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_environment(cls) -> Task:
        """Read what the runner said."""
        told = {name: os.environ[_PREFIX + name.upper()] for name in cls.__dataclass_fields__}
        return cls(
            bootstrap=told["bootstrap"], topic=told["topic"], group=told["group"], changelog=told["changelog"],
            record=told["record"], variant=told["variant"], partitions=int(told["partitions"]),
            commit_s=float(told["commit_s"]), table_file=Path(told["table_file"]),
            progress_file=Path(told["progress_file"]), sample_file=Path(told["sample_file"]),
            folder=Path(told["folder"]),
        )  # fmt: skip


class Progress:
    """
    Events counted and the sum of their item numbers, in shared memory: the runner reads while the peer writes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     progress = Progress(Path(folder) / "progress")
    ...     progress.add(3, 21)
    ...     Progress(Path(folder) / "progress").read()
    (3, 21)
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_COUNTS.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _COUNTS.size)
        self._events, self._sum = self.read()
        self._positions: dict[int, int] = {}

    def add(self, events: int, item_sum: int) -> None:
        """Count events."""
        self._events += events
        self._sum += item_sum
        _COUNTS.pack_into(self._memory, 0, self._events, self._sum)

    def reached(self, partition: int, next_offset: int) -> None:
        """
        Note a position instead of counting: for peers that fold an event again after they were killed.

        Positions may come in any order, because Bytewax folds a batch key by key.
        """
        self._positions[partition] = max(next_offset, self._positions.get(partition, 0))
        _COUNTS.pack_into(self._memory, 0, sum(self._positions.values()), 0)

    def read(self) -> tuple[int, int]:
        """Return the counts as they are now."""
        events, item_sum = _COUNTS.unpack_from(self._memory)
        return events, item_sum
