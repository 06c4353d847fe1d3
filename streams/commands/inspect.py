"""`freshet inspect`: all that is held of one user, in Kafka and in Redis, and whether the two agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import DependencyError, FreshetError
from streams.interests.state import UserState
from streams.settings import EVENT_TYPES, Settings
from streams.wire.limits import RejectedError, check_id
from streams.wire.recommendations import Recommendation, erased

#: Redis is written before the transaction commits; this long after, topic and cache are compared again.
_SETTLE_S = 2.0
#: Rows of the tables; `--json` has them all.
_SHOWN_EVENTS = 15
_SHOWN_ITEMS = 100


class Cached(NamedTuple):
    """What Redis holds under one key; `ttl_s` is -1 for a key without one, -2 for no key."""

    key: str
    value: bytes | None
    ttl_s: int


class Sight(NamedTuple):
    """
    All that is held of one user.

    Attributes
    ----------
    state
        The newest committed record of `user-state`; None when there is none.
    published
        The newest committed record value on `recommendations`.
    cached
        The list in Redis; None when Redis does not answer.
    buckets
        Experiment to variant as Redis has them.

    """

    user_id: str
    partition: int
    state: UserState | None
    published: bytes | None
    cached: Cached | None
    buckets: dict[str, str]


@guarded
def inspect(
    *,
    user: Annotated[str, typer.Argument(metavar="USER", help="User id, as in your events.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one object.")] = False,
) -> None:
    """
    Show one user: events, counts, exclusions, the list with scores and reasons, buckets, and what Redis holds.

    State and list are read from Kafka, read-committed. The exit code is 1 for a user nobody knows, and when Redis
    holds another list than the topic.
    """
    settings = read_settings()
    try:
        user_id = check_id(user, "USER")
    except RejectedError as error:
        raise FreshetError(error.rejected.error) from error
    sight = look(settings, user_id)
    if sight.state is None and sight.published is None and (sight.cached is None or sight.cached.value is None):
        raise FreshetError(
            f"user {user_id} is not known: no state, no list, nothing in Redis; "
            "refused events are in `freshet dead-letters list`"
        )
    shown = report(settings, sight)
    if as_json:
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
    else:
        _print(shown)
    if shown["redis"]["agrees"] is False:
        raise typer.Exit(1)


def look(settings: Settings, user_id: str) -> Sight:
    """
    Read what Kafka and Redis hold of a user; where they differ, once more after a commit has had its time.

    Raises
    ------
    FreshetError
        When a topic is missing or damaged, or Kafka does not answer.

    """
    from streams.commands.lookup import newest_records, partition_counts
    from streams.interests.codec import decode
    from streams.kafka.deadline import Deadline
    from streams.kafka.partitioner import partition_of

    counts = partition_counts(settings, "user-state", "recommendations")
    deadline = Deadline(settings.kafka_timeout_s)
    key = user_id.encode()
    partition = partition_of(key, counts["user-state"])
    settled_at = time.monotonic() + max(_SETTLE_S, 2 * settings.commit_interval_max_s)
    while True:
        found = newest_records(settings, "user-state", partition, {key}, deadline).get(key)
        state = decode(found.value()) if found is not None and found.value() is not None else None
        listed = newest_records(settings, "recommendations", partition, {key}, deadline).get(key)
        published = listed.value() if listed is not None else None
        cached, buckets = _cached(settings, user_id)
        if cached is None or cached.value == published or time.monotonic() >= settled_at:
            return Sight(user_id, partition, state, published, cached, buckets)
        time.sleep(settings.commit_interval_s)


def _cached(settings: Settings, user_id: str) -> tuple[Cached | None, dict[str, str]]:
    from redis.exceptions import RedisError

    from streams.refresh.cache import ListCache, connect

    cache = ListCache(settings)
    key = cache.list_key(user_id, settings.surfaces[0])
    client = connect(settings)
    try:
        value, ttl_s = client.get(key), client.ttl(key)
        return Cached(key, value if isinstance(value, bytes) else None, int(str(ttl_s))), cache.buckets(user_id)
    except (RedisError, OSError, DependencyError) as error:
        err.print(f"Redis at {settings.redis_url} does not answer: {error}", style="yellow", markup=False)
        return None, {}
    finally:
        client.close()
        cache.close()


def report(settings: Settings, sight: Sight) -> dict[str, Any]:
    """Return the sight as JSON fields: `user_id`, `partition`, `state`, `list`, `buckets`, `redis`."""
    made = _decoded(sight.published)
    titles = _titles(settings, sight, made)
    shown: dict[str, Any] = {"user_id": sight.user_id, "partition": sight.partition, "state": None, "list": None}
    if sight.state is not None:
        shown["state"] = _state(sight.state, titles)
    if made is not None:
        shown["list"] = msgspec.to_builtins(made)
        for item in shown["list"]["items"]:
            item["title"] = titles.get(item["item_id"], "")
            for reason in item["because"]:
                reason["title"] = titles.get(reason["item_id"], "")
    topic_buckets = {key: assigned.variant for key, assigned in made.experiments.items()} if made else {}
    shown["buckets"] = {"topic": topic_buckets, "redis": sight.buckets, "agree": topic_buckets == sight.buckets}
    shown["redis"] = _redis(sight)
    return shown


def _decoded(value: bytes | None) -> Recommendation | None:
    from streams.wire.recommendations import decode_recommendation

    if value is None:
        return None
    try:
        return decode_recommendation(value)
    except msgspec.DecodeError as error:
        raise FreshetError(f"the newest record on recommendations cannot be read: {error}") from error


def _titles(settings: Settings, sight: Sight, made: Recommendation | None) -> dict[str, str]:
    from streams.commands.lookup import item_titles

    if sight.cached is None:
        return {}
    wanted: set[str] = set()
    if made is not None:
        wanted.update(item.item_id for item in made.items)
        wanted.update(reason.item_id for item in made.items for reason in item.because)
    if sight.state is not None:
        wanted.update(event.item_id for event in sight.state.recent)
        wanted.update(sight.state.excluded)
    try:
        return item_titles(settings, wanted)
    except DependencyError:
        # The list was read a moment ago; titles are a courtesy.
        return {}


def _state(state: UserState, titles: dict[str, str]) -> dict[str, Any]:
    return {
        "erased_at": state.erased_at_ms or None,
        "counts": state.events_applied,
        "first_ts": state.first_ts_ms,
        "newest_ts": state.newest_ts_ms,
        "pending": state.pending,
        "recent": [
            {
                "ts": event.ts_ms,
                "type": EVENT_TYPES[event.type_code],
                "item_id": event.item_id,
                "title": titles.get(event.item_id, ""),
            }
            for event in reversed(state.recent)
        ],
        "older_items": len(state.items),
        "excluded": [
            {"item_id": item_id, "ts": ts_ms, "title": titles.get(item_id, "")}
            for item_id, ts_ms in sorted(state.excluded.items(), key=lambda pair: -pair[1])
        ],
        "impressions": {item_id: entry.times for item_id, entry in sorted(state.impressions.items())},
        "last_list_version": state.last_list.version if state.last_list else None,
    }


def _redis(sight: Sight) -> dict[str, Any]:
    """Say what Redis holds, and judge: `agrees` is None where there is nothing to compare."""
    cached = sight.cached
    if cached is None:
        return {"reachable": False, "agrees": None, "verdict": "Redis does not answer"}
    told: dict[str, Any] = {"reachable": True, "key": cached.key, "ttl_s": cached.ttl_s, "version": None}
    version = _version(cached.value)
    told["version"] = version
    topic_version = _version(sight.published)
    if cached.value == sight.published:
        return told | {"agrees": True, "verdict": "the same bytes as the newest record on the topic"}
    if sight.published is None and version is not None and cached.value == erased(version):
        return told | {"agrees": True, "verdict": "no list, and what keeps older lists of the erased user out"}
    if cached.value is None:
        return told | {"agrees": False, "verdict": "no list in Redis: it expired, was evicted or could not be written"}
    if topic_version is None or (version is not None and version > topic_version):
        return told | {"agrees": False, "verdict": "Redis is ahead of the topic: a commit is late, or was aborted"}
    if version == topic_version:
        return told | {"agrees": False, "verdict": "the same version with other bytes: somebody else wrote this key"}
    return told | {"agrees": False, "verdict": "Redis is behind the topic: a write was refused and is owed"}


def _version(value: bytes | None) -> int | None:
    if value is None:
        return None
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    version = fields.get("version") if isinstance(fields, dict) else None
    return version if isinstance(version, int) else None


def _print(shown: dict[str, Any]) -> None:
    from streams.commands.lookup import printable

    _heading(f"user {printable(shown['user_id'])}, partition {shown['partition']}")
    if (state := shown["state"]) is not None:
        _print_state(state)
    if (made := shown["list"]) is not None:
        _print_list(made)
    _heading("A/B buckets")
    for key, assigned in (made or {"experiments": {}})["experiments"].items():
        forced = ", forced" if assigned["forced"] else ""
        _line(f"  {key} = {assigned['variant']} (bucket {assigned['bucket']}, revision {assigned['revision']}{forced})")
    buckets = shown["buckets"]
    if not buckets["topic"] and not buckets["redis"]:
        _line("  in no experiment")
    elif not buckets["agree"]:
        _line(f"  Redis has {buckets['redis']}", style="yellow")
    redis = shown["redis"]
    _heading("Redis")
    if redis["reachable"]:
        _line(f"  {redis['key']}  version {redis['version'] or '-'}  TTL {redis['ttl_s']} s")
    _line(f"  {redis['verdict']}", style="green" if redis["agrees"] else "yellow")


def _print_state(state: dict[str, Any]) -> None:
    from streams.commands.lookup import local_time

    if (erased_at := state["erased_at"]) is not None:
        _line(f"erased: of what was sent until {local_time(erased_at)} nothing is left", style="yellow")
    counts = ", ".join(f"{name} {count}" for name, count in state["counts"].items()) or "none"
    owed = "a list is owed" if state["pending"] else "no list owed"
    if state["pending"] and erased_at is not None and not state["counts"]:
        owed = "Redis has still to forget the user"
    _line(f"events applied: {counts}; {state['older_items']} older items; {owed}")
    rows = [(local_time(e["ts"]), e["type"], e["item_id"], e["title"]) for e in state["recent"][:_SHOWN_EVENTS]]
    _table(f"recent events ({len(state['recent'])}, newest first)", ("time", "type", "item", "title"), rows)
    if state["excluded"]:
        rows_out = [(local_time(e["ts"]), e["item_id"], e["title"]) for e in state["excluded"][:_SHOWN_EVENTS]]
        _table(f"not offered again ({len(state['excluded'])})", ("since", "item", "title"), rows_out)


def _print_list(made: dict[str, Any]) -> None:
    from streams.commands.lookup import local_time

    rows = [
        (
            str(item["rank"]),
            item["item_id"],
            item["title"],
            f"{item['score']:.5f}",
            item["source"],
            "; ".join(f"{r['type']} {r['title'] or r['item_id']} {r['share']:.0%}" for r in item["because"]),
        )
        for item in made["items"][:_SHOWN_ITEMS]
    ]
    _table("list", ("rank", "item", "title", "score", "source", "because"), rows)
    fresh = f", {made['generated_at'] - made['ingested_at']} ms after its event" if made["ingested_at"] > 0 else ""
    _line(
        f"version {made['version']}, made {local_time(made['generated_at'])}{fresh}; policy {made['policy']}, "
        f"model {made['model'] or 'none yet'}, trigger {made['trigger']['kind']} {made['trigger']['topic']}"
    )


def _heading(text: str) -> None:
    out.print(f"\n{text}", style="bold", markup=False, highlight=False)


def _line(text: str, style: str | None = None) -> None:
    from streams.commands.lookup import printable

    out.print(printable(text), style=style, markup=False, highlight=False)


def _table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from streams.commands.lookup import printable

    _heading(title)
    table = Table(box=None, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    out.print(table)


def register(app: typer.Typer) -> None:
    """Add `inspect` to the command line."""
    app.command(
        rich_help_panel="Look", epilog=examples("freshet inspect 42", "freshet inspect 42 --json | jq '.list.items[0]'")
    )(inspect)
