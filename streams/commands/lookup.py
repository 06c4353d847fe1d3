"""What the looking commands share: newest records by key, item titles, text that is safe on a terminal."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

import orjson
from confluent_kafka import Message
from redis.exceptions import RedisError

from streams.errors import DependencyError, TopicMismatchError
from streams.kafka.admin import topic_partitions
from streams.kafka.bulk_read import read_to_end
from streams.kafka.deadline import Deadline
from streams.refresh.cache import connect
from streams.settings import Settings
from streams.topics import TOPICS, full_name


def partition_counts(settings: Settings, *names: str) -> dict[str, int]:
    """
    Return the partition count of topics, by name without namespace.

    Raises
    ------
    TopicMismatchError
        When one of them does not exist.
    DependencyError
        When Kafka does not answer.

    """
    found = topic_partitions(settings)
    for name in names:
        if full_name(settings, name) not in found:
            raise TopicMismatchError(
                f"topic {full_name(settings, name)} is missing; `freshet topics create` makes it "
                f"(is FRESHET_NAMESPACE={settings.namespace or '(empty)'} right?)"
            )
    return {name: found[full_name(settings, name)] for name in names}


def newest_records(
    settings: Settings, name: str, partition: int, keys: Collection[bytes], deadline: Deadline
) -> dict[bytes, Message]:
    """
    Return the newest read-committed record of each key in one partition; keys without one are left out.

    The whole partition is read: Kafka has no index by key. A compacted partition is small enough for that.

    Raises
    ------
    DependencyError
        When the end is not reached before the deadline.

    """
    newest: dict[bytes, Message] = {}

    def keep(messages: Sequence[Message]) -> None:
        newest.update((message.key(), message) for message in messages if message.key() in keys)

    read_to_end(settings, full_name(settings, name), [partition], keep, deadline)
    return newest


def item_titles(settings: Settings, item_ids: Iterable[str]) -> dict[str, str]:
    """
    Return titles from the item cards in Redis; items without a card are left out.

    Raises
    ------
    DependencyError
        When Redis does not answer.

    """
    wanted = sorted(set(item_ids))
    if not wanted:
        return {}
    client = connect(settings)
    try:
        cards = client.mget([f"{settings.redis_prefix}item:{item_id}" for item_id in wanted])
    except (RedisError, OSError) as error:
        raise DependencyError(f"Redis at {settings.redis_url} does not answer: {error}") from error
    finally:
        client.close()
    return {
        item_id: title
        for item_id, card in zip(wanted, cards, strict=True)
        if card is not None and (title := _title(card))
    }


def _title(card: bytes | str) -> str:
    try:
        fields = orjson.loads(card)
    except orjson.JSONDecodeError:
        return ""
    title = fields.get("title") if isinstance(fields, dict) else None
    return title if isinstance(title, str) else ""


def topic_name(settings: Settings, given: str) -> str | None:
    """
    Return the name without namespace of a topic that was given with or without it; None when it is not ours.

    >>> topic_name(Settings(namespace="shop"), "shop.clicks"), topic_name(Settings(), "other")
    ('clicks', None)
    """
    name = given.removeprefix(settings.topic_prefix)
    return name if name in TOPICS else None


def printable(value: bytes | str, max_chars: int = 1_000) -> str:
    r"""
    Return text that cannot steer a terminal: what is not printable becomes an escape; long text is cut.

    >>> printable(b"mug \x1b[31m\xff"), printable("abcdef", 4)
    ('mug \\x1b[31m\\xff', 'abc…')
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    cut = len(text) > max_chars
    shown = text[: max_chars - 1] if cut else text
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
    return f"{safe}…" if cut else safe


def local_time(ts_ms: int) -> str:
    """Return a time of day of this machine, with its date, to the millisecond; a dash for none."""
    if ts_ms <= 0:
        return "-"
    seconds, ms = divmod(ts_ms, 1_000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{ms:03d}"
