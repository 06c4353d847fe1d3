"""`freshet tail`: follow a topic, a line a record; lists with freshness and titles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import DependencyError, FreshetError, RecordFormatError
from streams.settings import Settings
from streams.wire.limits import RejectedError, check_id

#: How long one call waits for records, and so how long Ctrl-C may take.
_POLL_S = 0.2
#: Items named in a line; `--json` has them all.
_SHOWN_ITEMS = 3
#: Titles kept while following; they are small, and a catalogue may not be.
_MAX_TITLES = 20_000

Describe = Callable[[Any], str]


class Choice(NamedTuple):
    """What to follow: a topic without namespace, its partitions (None for all), and from where."""

    topic: str
    partitions: tuple[int, ...] | None
    from_beginning: bool
    committed: bool
    follow: bool


@guarded
def tail(
    *,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic of `freshet topics list`.")],
    user: Annotated[str | None, typer.Option(help="Only this user's records (topics keyed by user).")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="From the oldest record on.")] = False,
    committed: Annotated[
        bool, typer.Option("--committed", help="Only records of committed transactions; else milliseconds earlier.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on at the end, or read all and stop there.")
    ] = True,
    limit: Annotated[int, typer.Option(min=0, help="Stop after this many records; 0 never.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """
    Follow a topic: new records as they come, a line each. Ctrl-C ends it.

    A line of `recommendations` has the time, user, version, what triggered the list, how long after its event it was
    made, and the first items with their titles. Other topics show partition:offset, key and a summary.
    """
    from streams.commands.lookup import topic_name

    settings = read_settings()
    name = topic_name(settings, topic)
    if name is None:
        raise FreshetError(f"{topic} is no topic of Freshet; `freshet topics list` shows them")
    keys, partitions = _of_user(settings, name, user)
    describe: Describe = _as_json if as_json else _describer(settings, name)
    shown = 0
    for message in records(settings, Choice(name, partitions, from_beginning or not follow, committed, follow)):
        if keys is not None and message.key() not in keys:
            continue
        line = describe(message)
        if as_json:
            typer.echo(line)
        else:
            out.print(line, markup=False, highlight=False)
        shown += 1
        if shown == limit:
            return


def _of_user(settings: Settings, name: str, user: str | None) -> tuple[set[bytes] | None, tuple[int, ...] | None]:
    """Return the record keys and the one partition of a user; None and None for everybody."""
    from streams.commands.lookup import partition_counts
    from streams.kafka.partitioner import partition_of
    from streams.topics import TOPICS
    from streams.wire.recommendations import topic_key

    counts = partition_counts(settings, name)
    if user is None:
        return None, None
    if not TOPICS[name].co_partitioned:
        raise FreshetError(f"--user needs a topic whose key is the user; {name} is keyed by {TOPICS[name].key}")
    try:
        user_id = check_id(user, "--user")
    except RejectedError as error:
        raise FreshetError(error.rejected.error) from error
    keys = {user_id.encode()}
    if name == "recommendations":
        keys |= {topic_key(user_id, surface, settings.surfaces[0]) for surface in settings.surfaces}
    return keys, (partition_of(user_id.encode(), counts[name]),)


def records(settings: Settings, choice: Choice) -> Iterator[Any]:
    """
    Yield librdkafka messages of a topic as they come, for ever or until the end that was there.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, TopicPartition

    from streams.commands.lookup import partition_counts
    from streams.kafka.bulk_read import reader
    from streams.topics import full_name

    numbers = choice.partitions or tuple(range(partition_counts(settings, choice.topic)[choice.topic]))
    start = OFFSET_BEGINNING if choice.from_beginning else OFFSET_END
    consumer = reader(
        settings,
        isolation_level="read_committed" if choice.committed else "read_uncommitted",
        queued_min_messages=1_000,
        fetch_wait_max_ms=100,
    )
    waiting = set(numbers)
    try:
        consumer.assign([TopicPartition(full_name(settings, choice.topic), number, start) for number in numbers])
        if choice.follow:
            err.print(f"following {full_name(settings, choice.topic)}; Ctrl-C ends it", style="dim", markup=False)
        while choice.follow or waiting:
            message = consumer.poll(_POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
                waiting.discard(message.partition())
            elif error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 -- public constant
                _await_broker(settings, consumer)
            elif not error.retriable() and error.code() != KafkaError._TRANSPORT:  # noqa: SLF001 -- public constant
                raise DependencyError(f"reading {choice.topic} failed: {error.str()}")
    finally:
        consumer.close()


def _await_broker(settings: Settings, consumer: Any) -> None:
    """Return once a broker answers again."""
    from confluent_kafka import KafkaException

    from streams.kafka.deadline import Deadline

    err.print("Kafka is away; waiting for it", style="yellow")
    deadline = Deadline(settings.kafka_timeout_s)
    while True:
        try:
            consumer.list_topics(timeout=min(1.0, deadline.remaining_s()))
        except KafkaException as error:
            if deadline.passed:
                raise DependencyError(
                    f"Kafka at {settings.kafka_bootstrap} was away for longer than {settings.kafka_timeout_s:g} s"
                ) from error
        else:
            return


def _as_json(message: Any) -> str:
    fields: dict[str, Any] = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": as_text(message.key()),
        "value": as_value(message.value()),
    }
    if headers := message.headers():
        fields["headers"] = [[name, as_text(value)] for name, value in headers]
    return orjson.dumps(fields).decode()


def as_text(value: bytes | None) -> Any:
    r"""
    Return bytes for JSON: as text where they are UTF-8, else as `{"hex": ...}`.

    >>> as_text(b"u1"), as_text(b"\xff")
    ('u1', {'hex': 'ff'})
    """
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def as_value(value: bytes | None) -> Any:
    r"""
    Return a record's value for JSON: the document where it is one, else as `as_text` does.

    >>> as_value(b'{"a": 1}'), as_value(b"FU\xff")
    ({'a': 1}, {'hex': '4655ff'})
    """
    try:
        return orjson.loads(value) if value is not None else None
    except orjson.JSONDecodeError:
        return as_text(value)


def _describer(settings: Settings, name: str) -> Describe:
    """Return what makes a line of a record of this topic."""
    if name == "recommendations":
        return Lists(settings)
    summaries: dict[str, Callable[[Any], str]] = {
        "dead-letters": _dead_letter,
        "item-vectors": lambda message: _vector(message.value()),
        "item-events": lambda message: _item_events(message.value()),
        "user-state": lambda message: _user_state(message.value()),
    }
    summary = summaries.get(name, lambda message: _excerpt(message.value()))

    def describe(message: Any) -> str:
        from streams.commands.lookup import local_time, printable

        key = "-" if message.key() is None else printable(message.key(), 80)
        try:
            text = "(deleted)" if message.value() is None and name != "dead-letters" else summary(message)
        except RecordFormatError:
            # A control record, or one that is damaged: its bytes say more than a sentence.
            text = _excerpt(message.value())
        return f"{local_time(message.timestamp()[1])}  {message.partition()}:{message.offset()}  {key}  {text}"

    return describe


def _excerpt(value: bytes | None) -> str:
    from streams.commands.lookup import printable

    if value is None:
        return "(null)"
    # Binary formats of ours begin with two letters and a small number; text says more as text.
    return (
        printable(value, 300)
        if value[:1] in b"{[\"'" or value[:400].isascii()
        else f"{value[:64].hex()} ({len(value)} bytes)"
    )


def _dead_letter(message: Any) -> str:
    from streams.commands.lookup import printable
    from streams.wire.dead_letters import DeadLetter

    letter = DeadLetter.from_record(message.headers() or [], message.value())
    return printable(
        f"{letter.reason} at {letter.topic}:{letter.partition}:{letter.offset}: {letter.error}  ", 300
    ) + _excerpt(message.value())


def _vector(value: bytes) -> str:
    from streams.wire.vectors import decode_vector

    content_hash, vector = decode_vector(value)
    return f"vector of {vector.shape[0]}, content {content_hash.hex()[:12]}"


def _item_events(value: bytes) -> str:
    from streams.commands.lookup import printable
    from streams.settings import EVENT_TYPES
    from streams.wire.signals import decode_item_events

    events = decode_item_events(value)
    first = zip(events.type_code[:5].tolist(), events.item[:5].tolist(), strict=True)
    told = ", ".join(f"{EVENT_TYPES[type_code]} {events.ids[item]}" for type_code, item in first)
    return printable(f"{len(events.item)} events: {told}", 300)


def _user_state(value: bytes) -> str:
    from streams.interests.codec import decode

    state = decode(value)
    version = state.last_list.version if state.last_list else "-"
    if state.erased_at_ms and not state.events_applied:
        return "erased"
    counts = ", ".join(f"{name} {count}" for name, count in state.events_applied.items())
    return f"{counts or 'no events'}; recent {len(state.recent)}, list {version}{', owed' if state.pending else ''}"


class Lists:
    """Lines of `recommendations`; titles come from the item cards in Redis, as long as it answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._titles: dict[str, str] = {}
        self._titles_from_s = 0.0

    def __call__(self, message: Any) -> str:
        """Return the line of one list."""
        import msgspec

        from streams.commands.lookup import local_time, printable
        from streams.wire.recommendations import decode_recommendation

        if message.value() is None:
            return f"{local_time(message.timestamp()[1])}  {printable(message.key() or b'', 200)}  (deleted)"
        try:
            made = decode_recommendation(message.value())
        except msgspec.DecodeError:
            return f"{local_time(message.timestamp()[1])}  {message.partition()}:{message.offset()}  " + _excerpt(
                message.value()
            )
        who = made.user_id or "(visitors)"
        if made.surface != self._settings.surfaces[0]:
            who += f" @{made.surface}"
        fresh = f"{max(0, made.generated_at - made.ingested_at)} ms" if made.ingested_at > 0 else "-"
        trigger = made.trigger.topic.removeprefix(self._settings.topic_prefix) or made.trigger.kind
        items = [item.item_id for item in made.items[:_SHOWN_ITEMS]]
        titles = self._titles_of(items)
        named = ", ".join(f"{item} {titles[item]}" if item in titles else item for item in items)
        more = f" +{len(made.items) - len(items)}" if len(made.items) > len(items) else ""
        return (
            f"{local_time(made.generated_at)}  {printable(who, 80)}  v{made.version}  {printable(trigger, 40)}  "
            f"{fresh}  {printable(named, 200)}{more}"
        )

    def _titles_of(self, items: Sequence[str]) -> dict[str, str]:
        from streams.commands.lookup import item_titles

        missing = [item for item in items if item not in self._titles]
        if missing and time.monotonic() >= self._titles_from_s:
            if len(self._titles) > _MAX_TITLES:
                self._titles.clear()
            try:
                self._titles |= item_titles(self._settings, missing)
            except DependencyError as error:
                err.print(f"{error}; lists go on without titles for a while", style="yellow", markup=False)
                self._titles_from_s = time.monotonic() + 10
        return self._titles


def register(app: typer.Typer) -> None:
    """Add `tail` to the command line."""
    app.command(
        rich_help_panel="Look",
        epilog=examples(
            "freshet tail recommendations",
            "freshet tail recommendations --user 42 --committed",
            "freshet tail clicks --from-beginning --limit 10 --json",
            "freshet tail dead-letters --from-beginning --no-follow",
        ),
    )(tail)
