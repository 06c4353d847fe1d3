"""`freshet dead-letters`: what was refused and why, and sending it again once the cause is gone."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import DependencyError, FreshetError, RecordFormatError
from streams.settings import Settings
from streams.wire.dead_letters import DeadLetter

app = typer.Typer(name="dead-letters", help="Refused records: list them, send them again.", no_args_is_help=True)

#: Header of a replayed record: where its dead letter stands.
REPLAYED_FROM = "replayed-from"

Reason = Annotated[str | None, typer.Option(help="Only letters with this reason, like wrong_partition.")]
Source = Annotated[str | None, typer.Option("--topic", help="Only letters of this source topic, like clicks.")]


class Position(NamedTuple):
    """
    How far the letters of one partition of `dead-letters` have been replayed.

    A replay with `--reason` or `--topic` passes over the rest, so each class (source topic and reason) that went ahead
    has an offset of its own. The position is what a consumer group commits: `offset`, and `ahead` as its metadata.

    Attributes
    ----------
    offset
        Every letter below it is done.
    ahead
        Class to the offset below which its letters are done, where that is above `offset`.

    """

    offset: int = 0
    ahead: dict[str, int] = {}  # noqa: RUF012  # never changed in place

    def done(self, offset: int, kind: str) -> bool:
        """
        Whether a letter was replayed before.

        >>> Position(5, {"clicks bug": 9}).done(7, "clicks bug"), Position(5).done(7, "clicks bug")
        (True, False)
        """
        return offset < max(self.offset, self.ahead.get(kind, 0))

    def metadata(self) -> str:
        """Return what stands beside the offset in the group's commit; at most a few classes exist in a partition."""
        return orjson.dumps(self.ahead).decode() if self.ahead else ""

    @classmethod
    def read(cls, offset: int, metadata: str | None) -> Position:
        """Read a commit; a negative offset stands for none."""
        try:
            ahead = orjson.loads(metadata) if metadata else {}
        except orjson.JSONDecodeError:
            ahead = {}  # another tool moved the group: its offset counts
        return cls(max(0, offset), ahead if isinstance(ahead, dict) else {})


class Found(NamedTuple):
    """One dead letter, and where it stands on `dead-letters`."""

    partition: int
    offset: int
    letter: DeadLetter

    @property
    def kind(self) -> str:
        """Source topic and reason: what the filters select by."""
        return f"{self.letter.topic} {self.letter.reason}"


class Filter(NamedTuple):
    """What the options select; `topic` is Kafka's full name."""

    reason: str | None
    topic: str | None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter is selected."""
        return self.reason in (None, letter.reason) and self.topic in (None, letter.topic)


@app.callback()
def main() -> None:
    """Refused records: list them, send them again."""


@app.command(
    "list",
    epilog=examples(
        "freshet dead-letters list",
        "freshet dead-letters list --reason wrong_partition --topic clicks",
        "freshet dead-letters list --limit 0 --json | jq -r .[].error",
    ),
)
@guarded
def list_(
    *,
    reason: Reason = None,
    topic: Source = None,
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 for all.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a list of objects.")] = False,
) -> None:
    """List refused records, the newest last: when, from where, why, and the beginning of their bytes."""
    settings = read_settings()
    chosen = _filter(settings, reason, topic)
    newest: deque[Found] = deque(maxlen=limit or None)
    counts: Counter[str] = Counter()
    everything = sorted(
        (found for found in read(settings) if chosen.takes(found.letter)), key=lambda found: found.letter.time_ms
    )
    for found in everything:
        counts[found.letter.reason] += 1
        newest.append(found)
    if as_json:
        typer.echo(orjson.dumps([_fields(found) for found in newest], option=orjson.OPT_INDENT_2))
        return
    _print(newest)
    told = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    err.print(f"{counts.total()} dead letters{f': {told}' if told else ''}; {len(newest)} shown", highlight=False)


def read(settings: Settings, ends: dict[int, int] | None = None) -> list[Found]:
    """
    Return every dead letter there is, in offset order within a partition; `ends` receives where each partition ends.

    Raises
    ------
    FreshetError
        When the topic is missing or Kafka does not answer.

    """
    from streams.commands.lookup import partition_counts
    from streams.kafka.bulk_read import read_to_end
    from streams.kafka.deadline import Deadline
    from streams.topics import full_name

    count = partition_counts(settings, "dead-letters")["dead-letters"]
    found: list[Found] = []
    strange = 0

    def keep(messages: Sequence[Any]) -> None:
        nonlocal strange
        for message in messages:
            try:
                letter = DeadLetter.from_record(message.headers() or [], message.value())
            except RecordFormatError:
                strange += 1
                continue
            found.append(Found(message.partition(), message.offset(), letter))

    reached = read_to_end(
        settings, full_name(settings, "dead-letters"), range(count), keep, Deadline(settings.kafka_timeout_s)
    )
    if ends is not None:
        ends.update(reached)
    if strange:
        err.print(f"{strange} records on dead-letters are not Freshet's and were passed over", style="yellow")
    return found


def _filter(settings: Settings, reason: str | None, topic: str | None) -> Filter:
    from typing import get_args

    from streams.commands.lookup import topic_name
    from streams.topics import full_name
    from streams.wire import limits

    if reason is not None and reason not in get_args(limits.Reason):
        raise FreshetError(f"{reason} is no reason; known are {', '.join(sorted(get_args(limits.Reason)))}")
    if topic is None:
        return Filter(reason, None)
    name = topic_name(settings, topic)
    if name is None:
        raise FreshetError(f"{topic} is no topic of Freshet; `freshet topics list` shows them")
    return Filter(reason, full_name(settings, name))


def _fields(found: Found) -> dict[str, Any]:
    from streams.commands.tail import as_text

    letter = found.letter
    return {
        "dead_letter": f"{found.partition}:{found.offset}",
        "time": letter.time_ms,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "error": letter.error,
        "key": as_text(letter.key),
        "value": as_text(letter.value),
    }


def _print(letters: Sequence[Found] | deque[Found]) -> None:
    from rich.table import Table
    from rich.text import Text

    from streams.commands.lookup import local_time, printable

    if not letters:
        return
    table = Table(box=None, header_style="bold")
    for heading, wide in (("time", False), ("record", False), ("reason", False), ("error", True), ("bytes", True)):
        table.add_column(heading, no_wrap=not wide, overflow="fold")
    for found in letters:
        letter = found.letter
        value = "(null)" if letter.value is None else printable(letter.value, 120)
        place = printable(f"{letter.topic}:{letter.partition}:{letter.offset}")
        cells = (local_time(letter.time_ms), place, printable(letter.reason), printable(letter.error, 200), value)
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)


@app.command(
    epilog=examples(
        "freshet dead-letters replay --dry-run",
        "freshet dead-letters replay --reason wrong_partition",
        "freshet dead-letters replay --topic clicks --yes --json",
    )
)
@guarded
def replay(
    *,
    reason: Reason = None,
    topic: Source = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were replayed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: the counts as one object.")] = False,
) -> None:
    """
    Send refused records again to their source topic, original key and bytes, partition by murmur2 of the key.

    A record that is still bad comes back as a new dead letter. Each dead letter is replayed once: how far is
    remembered in Kafka, as commits of the group freshet-dead-letters-replay; --all sends them again. Only letters
    that are there at the start are sent, so a replay ends. Records without a key cannot be placed and are left out.
    A replay that is killed may send its last records twice; events count once by their event_id. Replayed records
    carry the header replayed-from (dead-letters:partition:offset).
    """
    settings = read_settings()
    chosen = _filter(settings, reason, topic)
    ends: dict[int, int] = {}
    letters = read(settings, ends)
    positions = Positions(settings, sorted(ends))
    with positions:
        fresh = [
            found
            for found in letters
            if chosen.takes(found.letter)
            and (everything or not positions.known[found.partition].done(found.offset, found.kind))
        ]
        ready = [found for found in fresh if _can_go(settings, found.letter)]
        counts = {"found": len(letters), "selected": len(fresh), "left_out": len(fresh) - len(ready), "sent": 0}
        if not dry_run and ready:
            if not yes:
                _confirm(ready)
            counts["sent"] = _send(settings, ready)
            positions.commit(_after(positions.known, chosen, letters, ends))
    _tell(counts, ready, dry_run=dry_run, as_json=as_json)


def _can_go(settings: Settings, letter: DeadLetter) -> bool:
    """Whether a letter has a key and names a topic of ours: what a header says is not trusted."""
    from streams.commands.lookup import topic_name
    from streams.topics import full_name

    name = topic_name(settings, letter.topic)
    return bool(letter.key) and name not in (None, "dead-letters") and full_name(settings, name or "") == letter.topic


def _confirm(ready: Sequence[Found]) -> None:
    told = ", ".join(f"{kind} {count}" for kind, count in Counter(found.kind for found in ready).most_common())
    err.print(told, markup=False, highlight=False)
    if not typer.confirm(f"Send {len(ready)} records again?", err=True):
        raise typer.Exit(1)


def _send(settings: Settings, ready: Sequence[Found]) -> int:
    from streams.commands.sending import Sender

    with Sender(settings) as sender:
        for found in ready:
            letter = found.letter
            assert letter.key is not None
            place = b"dead-letters:%d:%d" % (found.partition, found.offset)
            sender.send(letter.topic, letter.key, letter.value, [(REPLAYED_FROM, place)])
    if sender.refused:
        # They stay dead letters; the operator sees why. The others must not go twice because of them.
        err.print(f"Kafka refused {len(sender.refused)} records: {sender.refused[0]}", style="red", markup=False)
    return sender.sent


def _after(
    known: dict[int, Position], chosen: Filter, letters: Sequence[Found], ends: dict[int, int]
) -> dict[int, Position]:
    """Return the positions after a replay of all that was chosen below `ends`."""
    if chosen == Filter(None, None):
        return {partition: Position(end) for partition, end in ends.items()}
    after = {partition: dict(position.ahead) for partition, position in known.items()}
    for found in letters:
        if chosen.takes(found.letter):
            after[found.partition][found.kind] = ends[found.partition]
    return {partition: Position(known[partition].offset, ahead) for partition, ahead in after.items()}


def _tell(counts: dict[str, int], ready: Sequence[Found], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(counts, option=orjson.OPT_INDENT_2))
        return
    if dry_run:
        for kind, count in Counter(found.kind for found in ready).most_common():
            out.print(f"{kind}: {count}", markup=False, highlight=False)
    done = f"{len(ready)} records would be sent" if dry_run else f"{counts['sent']} records sent again"
    rest = f", {counts['left_out']} left out (no key, or a topic that is not Freshet's)" if counts["left_out"] else ""
    out.print(f"{done}{rest}", highlight=False)


class Positions:
    """
    How far each partition of `dead-letters` has been replayed, as commits of a consumer group. A context manager.

    Attributes
    ----------
    known
        The positions at the start, by partition.

    """

    def __init__(self, settings: Settings, partitions: Sequence[int]) -> None:
        from streams.topics import full_name

        self.known: dict[int, Position] = {}
        self._settings = settings
        self._topic = full_name(settings, "dead-letters")
        self._partitions = partitions
        self._consumer: Any = None

    def __enter__(self) -> Positions:
        """Read the commits; the consumer never joins the group."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        from streams.kafka.clients import librdkafka_config

        group = self._settings.group("dead-letters-replay")
        self._consumer = Consumer(librdkafka_config(self._settings, group_id=group, enable_auto_commit=False))
        wanted = [TopicPartition(self._topic, partition) for partition in self._partitions]
        try:
            told = self._consumer.committed(wanted, timeout=self._settings.kafka_timeout_s)
        except KafkaException as error:
            self._consumer.close()
            raise DependencyError(f"reading what was replayed before failed: {error.args[0]}") from error
        self.known = {place.partition: Position.read(place.offset, place.metadata) for place in told}
        return self

    def commit(self, after: dict[int, Position]) -> None:
        """
        Remember new positions.

        Raises
        ------
        DependencyError
            When Kafka does not take them; the records were sent and would be sent again.

        """
        from confluent_kafka import KafkaException, TopicPartition

        places = [
            TopicPartition(self._topic, partition, position.offset, position.metadata())
            for partition, position in after.items()
        ]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise DependencyError(
                f"the records were sent, but remembering it failed: {error.args[0]}; do not replay without looking"
            ) from error

    def __exit__(self, *_: object) -> None:
        """Close the consumer."""
        self._consumer.close()


def register(app_: typer.Typer) -> None:
    """Add `dead-letters` to the command line."""
    app_.add_typer(app)
