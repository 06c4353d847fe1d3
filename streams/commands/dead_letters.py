"""`freshet dead-letters`: what was refused and why, and sending it again once the cause is gone."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.commands.positions import Position, Positions
from streams.errors import FreshetError, RecordFormatError
from streams.settings import Settings
from streams.topics import EVENT_TOPICS
from streams.wire.dead_letters import DeadLetter

app = typer.Typer(name="dead-letters", help="Refused records: list them, send them again.", no_args_is_help=True)

#: Reading the whole topic may take this long: seven days of a producer's mistakes are gigabytes.
_READ_S = 300.0
#: Where a record may be sent again: what is keyed and decoded by the workers.
_REPLAYABLE = frozenset((*EVENT_TOPICS, "user-erasures", "merges", "items", "item-sightings"))
#: Header of a replayed record: where its dead letter stands.
REPLAYED_FROM = "replayed-from"

Reason = Annotated[str | None, typer.Option(help="Only letters with this reason, like wrong_partition.")]
Source = Annotated[str | None, typer.Option("--topic", help="Only letters of this source topic, like clicks.")]


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
    newest: list[tuple[int, int, int, Found]] = []
    counts: Counter[str] = Counter()

    def keep(found: Found) -> None:
        if not chosen.takes(found.letter):
            return
        counts[found.letter.reason] += 1
        heapq.heappush(newest, (found.letter.time_ms, found.partition, found.offset, found))
        if limit and len(newest) > limit:
            heapq.heappop(newest)

    read(settings, keep)
    shown = [found for *_, found in sorted(newest, key=lambda row: row[:3])]
    if as_json:
        typer.echo(orjson.dumps([_fields(found) for found in shown], option=orjson.OPT_INDENT_2))
        return
    for found in shown:
        _print(found)
    told = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    err.print(f"{counts.total()} dead letters{f': {told}' if told else ''}; {len(shown)} shown", highlight=False)


def read(
    settings: Settings, on_letter: Callable[[Found], None], starts: Mapping[int, int] | None = None
) -> dict[int, int]:
    """
    Hand over every dead letter there is, in offset order within a partition; return where each partition ends.

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
    strange = 0

    def decode(messages: Sequence[Any]) -> None:
        nonlocal strange
        for message in messages:
            try:
                letter = DeadLetter.from_record(message.headers() or [], message.value())
            except RecordFormatError:
                strange += 1
                continue
            on_letter(Found(message.partition(), message.offset(), letter))

    # The deadline counts from here: a topic of gigabytes takes as long as its bytes take.
    deadline = Deadline(max(_READ_S, settings.kafka_timeout_s))
    ends = read_to_end(settings, full_name(settings, "dead-letters"), range(count), decode, deadline, starts)
    if strange:
        err.print(f"{strange} records on dead-letters are not Freshet's and were passed over", style="yellow")
    return ends


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


def _print(found: Found) -> None:
    from streams.commands.lookup import local_time, printable

    letter = found.letter
    place = printable(f"{letter.topic}:{letter.partition}:{letter.offset}")
    out.print(f"{local_time(letter.time_ms)}  {place}", end="  ", markup=False, highlight=False)
    out.print(printable(letter.reason), end="  ", style="red", markup=False, highlight=False)
    out.print(printable(letter.error, 200), markup=False, highlight=False)
    key = "(no key)" if letter.key is None else printable(letter.key, 80)
    value = "(null)" if letter.value is None else printable(letter.value, 160)
    out.print(f"    {key}  {value}", style="dim", markup=False, highlight=False)


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
    with Positions(settings) as positions:
        known = {} if everything else positions.known
        plan = Plan(settings, chosen, known)
        plan.ends = read(settings, plan.count, {partition: position.offset for partition, position in known.items()})
        sent = 0
        if not dry_run and plan.ready:
            if not yes:
                _confirm(plan.ready)
            sent = _send(settings, plan)
        # What was left out is done with, too; where all was refused by Kafka nothing is.
        if not dry_run and (sent or plan.left_out):
            positions.commit(plan.after(positions.known))
    counts = {"selected": plan.ready.total() + plan.left_out, "left_out": plan.left_out, "sent": sent}
    _tell(counts, plan.ready, dry_run=dry_run, as_json=as_json)


class Plan:
    """
    What a replay will send, counted before anything is sent.

    Attributes
    ----------
    ready
        Letters to send by class.
    left_out
        Letters that are selected and cannot be sent.
    ends
        Where each partition ended when it was counted; what comes later is not sent, so that a replay ends.

    """

    def __init__(self, settings: Settings, chosen: Filter, known: Mapping[int, Position]) -> None:
        self.ready: Counter[str] = Counter()
        self.left_out = 0
        self.ends: dict[int, int] = {}
        self.known = known
        self._settings = settings
        self._chosen = chosen
        self._kinds: dict[int, set[str]] = defaultdict(set)

    def takes(self, found: Found) -> bool:
        """Whether a letter is selected and was not replayed before."""
        done = self.known.get(found.partition, Position()).done(found.offset, found.kind)
        return self._chosen.takes(found.letter) and not done

    def can_go(self, found: Found) -> bool:
        """Whether a letter has a key and names a topic of ours: what a header says is not trusted."""
        from streams.commands.lookup import topic_name
        from streams.topics import full_name

        letter = found.letter
        name = topic_name(self._settings, letter.topic)
        return bool(letter.key) and name in _REPLAYABLE and full_name(self._settings, name) == letter.topic

    def count(self, found: Found) -> None:
        """Take a letter into the plan."""
        if not self.takes(found):
            return
        self._kinds[found.partition].add(found.kind)
        if self.can_go(found):
            self.ready[found.kind] += 1
        else:
            self.left_out += 1

    def after(self, known: Mapping[int, Position]) -> dict[int, Position]:
        """Return the positions once the plan is carried out."""
        if self._chosen == Filter(None, None):
            return {partition: Position(end) for partition, end in self.ends.items()}
        positions = {}
        for partition, kinds in self._kinds.items():
            before = known.get(partition, Position())
            ahead = {**before.ahead, **dict.fromkeys(sorted(kinds), self.ends[partition])}
            positions[partition] = Position(before.offset, ahead)
        return positions


def _confirm(ready: Counter[str]) -> None:
    told = ", ".join(f"{kind} {count}" for kind, count in ready.most_common())
    err.print(told, markup=False, highlight=False)
    if not typer.confirm(f"Send {ready.total()} records again?", err=True):
        raise typer.Exit(1)


def _send(settings: Settings, plan: Plan) -> int:
    from streams.commands.sending import Sender

    with Sender(settings) as sender:

        def send(found: Found) -> None:
            letter = found.letter
            if found.offset >= plan.ends[found.partition] or not plan.takes(found) or not plan.can_go(found):
                return
            assert letter.key is not None
            place = b"dead-letters:%d:%d" % (found.partition, found.offset)
            sender.send(letter.topic, letter.key, letter.value, [(REPLAYED_FROM, place)])

        read(settings, send, {partition: position.offset for partition, position in plan.known.items()})
    if sender.refused:
        # They stay dead letters and the operator sees why; the others must not go twice because of them.
        err.print(f"Kafka refused {len(sender.refused)} records: {sender.refused[0]}", style="red", markup=False)
    return sender.sent


def _tell(counts: dict[str, int], ready: Counter[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(counts, option=orjson.OPT_INDENT_2))
        return
    if dry_run:
        for kind, count in ready.most_common():
            out.print(f"{kind}: {count}", markup=False, highlight=False)
    done = f"{ready.total()} records would be sent" if dry_run else f"{counts['sent']} records sent again"
    rest = f", {counts['left_out']} left out (no key, or a topic that is not Freshet's)" if counts["left_out"] else ""
    out.print(f"{done}{rest}", highlight=False)


def register(app_: typer.Typer) -> None:
    """Add `dead-letters` to the command line."""
    app_.add_typer(app, rich_help_panel="Kafka")
