"""
The cache in Redis: lists, buckets, default lists and item cards, the newest version wins, every key expires.

Redis is never on the commit path: a write that fails is counted and returned, not raised, and after some failures in
a row Redis is left alone for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson
import redis
import structlog
from redis.backoff import ConstantBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from streams import metrics
from streams.errors import ConfigurationError, DependencyError
from streams.refresh.breaker import Breaker
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.recommendations import erased

_LOG = structlog.get_logger(__name__)

#: Commands of one pipeline: 500 lists are some 2 MB, which Redis takes well within its timeout.
_PIPELINE = 500
_RETRY_PAUSE_S = 0.01
#: How long what stands for an erased user keeps older lists out, and where nothing is blocked what stands for that
#: older words of it. A worker that slept may still write one when it wakes;
#: Kafka gives its partitions away after `kafka_session_timeout_s`, at most half an hour by the broker's default.
_ERASED_TTL_S = 3_600
#: Hidden field of the buckets' hash; no experiment key starts with an underscore.
_VERSION_FIELD = b"_version"

# Versions are compared as decimal texts: Lua's numbers are floats and would round beyond 2^53.
_NEWER = """
local function newer(stored, given)
  if not stored then return 1 end
  if stored == given then return 0 end
  if #stored ~= #given then return #stored < #given and 1 or -1 end
  return stored < given and 1 or -1
end
"""
#: KEYS[1] list; ARGV version, ttl, value. 1 written, 0 the same version was there, -1 a newer one was.
_PUT_LIST = (
    _NEWER
    + """
local stored = string.match(redis.call('GETRANGE', KEYS[1], 0, 40), '^{"version":(%d+)[,}]')
local order = newer(stored, ARGV[1])
if order > 0 then redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[2]) end
return order
"""
)
#: KEYS[1] hash; ARGV version, ttl, then field, value and so on.
_PUT_BUCKETS = (
    _NEWER
    + """
local order = newer(redis.call('HGET', KEYS[1], '_version'), ARGV[1])
if order > 0 then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], '_version', ARGV[1], unpack(ARGV, 3))
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return order
"""
)
#: KEYS[1] hash; ARGV version, ttl, ttl of an empty one, then item, reason and so on; an empty reason takes an item out.
_PUT_BLOCKED = (
    _NEWER
    + """
local order = newer(redis.call('HGET', KEYS[1], ''), ARGV[1])
if order < 0 then return order end
redis.call('HSET', KEYS[1], '', ARGV[1])
for place = 4, #ARGV, 2 do
  if ARGV[place + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[place])
  else
    redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1])
  end
end
redis.call('EXPIRE', KEYS[1], redis.call('HLEN', KEYS[1]) > 1 and ARGV[2] or ARGV[3])
return order
"""
)


class CacheEntry(NamedTuple):
    """
    One list to cache.

    Attributes
    ----------
    value
        The JSON of the list, `version` first: the same bytes as on `recommendations`.
    buckets
        Experiment key to variant; written beside the list under the same version.
    is_erasure
        Whether this stands for an erased user instead, for an hour.

    """

    user_id: str
    surface: str
    version: int
    value: bytes
    buckets: Mapping[str, str]
    is_erasure: bool = False

    @classmethod
    def erasure(cls, user_id: str, surface: str, version: int) -> CacheEntry:
        """Return what takes the place of a user's lists of lesser versions, and of the buckets."""
        return cls(user_id, surface, version, erased(version), {}, is_erasure=True)


class CacheResult(NamedTuple):
    """How many entries were written (or were there already), met a newer version, or failed."""

    written: int
    stale: int
    failed: int


class _Call(NamedTuple):
    """One run of a script on one key."""

    script: str
    key: str
    arguments: Sequence[str | bytes | int]


class ListCache:
    """
    The cache. Thread safe; used from a thread, because a call may take up to two timeouts.

    Parameters
    ----------
    clock
        Monotonic seconds, for the breaker.

    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._prefix = settings.redis_prefix
        self._main = settings.surfaces[0]
        self._ttl_s = settings.redis_ttl_s
        self._breaker = Breaker(clock)
        self._redis = connect(settings)
        self._hashes: dict[str, str] = {}

    def list_key(self, user_id: str, surface: str) -> str:
        """Return the key of a user's list; the first surface is the main one and goes without its name."""
        return f"{self._prefix}rec:{user_id}" if surface == self._main else f"{self._prefix}rec@{surface}:{user_id}"

    def buckets_key(self, user_id: str) -> str:
        """Return the key of a user's buckets."""
        return f"{self._prefix}ab:{user_id}"

    def default_key(self, surface: str) -> str:
        """Return the key of the list for visitors without events."""
        return f"{self._prefix}rec-default:{surface}"

    def card_key(self, item_id: str) -> str:
        """Return the key of an item's card."""
        return f"{self._prefix}item:{item_id}"

    @property
    def blocked_key(self) -> str:
        """The key of what must not be shown."""
        return f"{self._prefix}blocked"

    def write(self, entries: Sequence[CacheEntry]) -> CacheResult:
        """Write lists and buckets; of a user's versions the newest stays, in whatever order they come."""
        calls: list[_Call] = []
        for entry in entries:
            version = str(entry.version)
            ttl_s = _ERASED_TTL_S if entry.is_erasure else self._ttl_s
            calls.append(_Call(_PUT_LIST, self.list_key(entry.user_id, entry.surface), (version, ttl_s, entry.value)))
            pairs = [text for pair in entry.buckets.items() for text in pair]
            calls.append(_Call(_PUT_BUCKETS, self.buckets_key(entry.user_id), (version, ttl_s, *pairs)))
        answers = self._run(calls)
        # The list decides; its buckets may rightly be older than those of a newer list on another surface.
        return self._result(
            [None if buckets is None else listed for listed, buckets in zip(answers[::2], answers[1::2], strict=True)]
        )

    def write_defaults(self, lists: Mapping[str, tuple[int, bytes]]) -> CacheResult:
        """Write the lists for visitors without events: surface to (version, JSON)."""
        calls = [
            _Call(_PUT_LIST, self.default_key(surface), (str(version), self._ttl_s, value))
            for surface, (version, value) in lists.items()
        ]
        return self._result(self._run(calls))

    def write_cards(self, items: Iterable[Item]) -> CacheResult:
        """Write a small JSON card of each item, for people who look."""
        cards = {self.card_key(item.item_id): orjson.dumps(_card(item)) for item in items}

        def fill(pipeline: Any) -> None:
            for key, value in cards.items():
                pipeline.set(key, value, ex=self._ttl_s)

        answers = self._attempt(fill, len(cards))
        return self._result([1 if answer is True else None for answer in answers])

    def write_blocked(self, changes: Mapping[str, str], version: int) -> CacheResult:
        """
        Tell front ends what must not be shown: item to reason, an empty one where an item may be shown again.

        Nothing is changed where something was written under a greater version.
        """
        pairs = list(changes.items())
        calls = []
        for start in range(0, max(len(pairs), 1), _PIPELINE):
            texts = [text for pair in pairs[start : start + _PIPELINE] for text in pair]
            calls.append(_Call(_PUT_BLOCKED, self.blocked_key, (str(version), self._ttl_s, _ERASED_TTL_S, *texts)))
        return self._result(self._run(calls))

    def write_all_blocked(self, withheld: Mapping[str, str], version: int) -> CacheResult:
        """Tell front ends all that must not be shown, in place of what they were told before; item to reason."""
        # From here on no older owner changes what is read below.
        claimed = self.write_blocked({}, version)
        if claimed != CacheResult(1, 0, 0):
            return claimed
        try:
            told = self.blocked()
        except DependencyError as error:
            _LOG.warning("redis read failed", error=str(error))
            return CacheResult(0, 0, 1)
        gone = {item_id: "" for item_id in told if item_id not in withheld}
        new = {item_id: reason for item_id, reason in withheld.items() if told.get(item_id) != reason}
        return self.write_blocked(gone | new, version)

    def blocked(self) -> dict[str, str]:
        """Return the items that must not be shown, and why; raises as `get` does."""
        stored: dict[bytes, bytes] = self._read(lambda: self._redis.hgetall(self.blocked_key))
        return {item_id.decode(): reason.decode() for item_id, reason in stored.items() if item_id}

    def get(self, user_id: str, surface: str) -> bytes | None:
        """
        Return the cached JSON of a user's list; None when there is none.

        Raises
        ------
        DependencyError
            When Redis does not answer.

        """
        value: bytes | None = self._read(lambda: self._redis.get(self.list_key(user_id, surface)))
        return value

    def get_default(self, surface: str) -> bytes | None:
        """Return the cached list for visitors without events; raises as `get` does."""
        value: bytes | None = self._read(lambda: self._redis.get(self.default_key(surface)))
        return value

    def buckets(self, user_id: str) -> dict[str, str]:
        """Return experiment key to variant of a user; raises as `get` does."""
        stored: dict[bytes, bytes] = self._read(lambda: self._redis.hgetall(self.buckets_key(user_id)))
        return {key.decode(): value.decode() for key, value in sorted(stored.items()) if key != _VERSION_FIELD}

    def ping(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(self._redis.ping())
        except (RedisError, OSError):
            return False

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _run(self, calls: Sequence[_Call]) -> list[int | None]:
        """Run scripts in pipelines; None stands for each that failed."""
        answers: list[int | None] = []
        for start in range(0, len(calls), _PIPELINE):
            part = calls[start : start + _PIPELINE]
            fill = partial(self._fill, part)
            given = self._attempt(fill, len(part))
            if any(isinstance(answer, NoScriptError) for answer in given):
                # Redis was restarted or its scripts were flushed. Running a script again that has run is harmless.
                self._hashes.clear()
                given = self._attempt(fill, len(part))
            answers.extend(answer if isinstance(answer, int) else None for answer in given)
            if all(answer is None for answer in given):
                # One wait for a silent Redis is enough; the rest is not tried.
                break
        return answers + [None] * (len(calls) - len(answers))

    def _fill(self, calls: Sequence[_Call], pipeline: Any) -> None:
        for script in {call.script for call in calls} - set(self._hashes):
            self._hashes[script] = self._redis.script_load(script)
        for call in calls:
            pipeline.evalsha(self._hashes[call.script], 1, call.key, *call.arguments)

    def _attempt(self, fill: Callable[[Any], None], size: int) -> list[Any]:
        """Run one pipeline; a list of None when Redis is left alone or does not answer."""
        if not size or not self._breaker.closed:
            return [None] * size
        try:
            with metrics.CACHE_SECONDS.time(), self._redis.pipeline(transaction=False) as pipeline:
                fill(pipeline)
                answers: list[Any] = pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._breaker.failed()
            _LOG.warning("redis write failed", error=str(error) or type(error).__name__)
            return [None] * size
        self._breaker.succeeded()
        refused = [answer for answer in answers if isinstance(answer, RedisError)]
        if refused and not isinstance(refused[0], NoScriptError):
            _LOG.warning("redis refused writes", count=len(refused), error=str(refused[0]))
        return answers

    def _result(self, answers: Sequence[int | None]) -> CacheResult:
        failed = sum(answer is None for answer in answers)
        stale = sum(answer is not None and answer < 0 for answer in answers)
        result = CacheResult(len(answers) - failed - stale, stale, failed)
        for name, count in zip(result._fields, result, strict=True):
            if count:
                metrics.CACHE_WRITES.labels(name).inc(count)
        return result

    def _read(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (RedisError, OSError) as error:
            raise DependencyError(f"Redis does not answer: {error}") from error


def connect(settings: Settings) -> redis.Redis:
    """
    Return a client by the settings: short timeouts, one retry, TLS and ACL user where they are set.

    Raises
    ------
    ConfigurationError
        When the address cannot be read.

    """
    options: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "retry": Retry(ConstantBackoff(_RETRY_PAUSE_S), 1),
        "client_name": f"{settings.topic_prefix}freshet",
    }
    if settings.redis_username:
        options["username"] = settings.redis_username
    if password := settings.redis_password.get_secret_value():
        options["password"] = password
    if settings.redis_ssl_ca_file:
        options["ssl_ca_certs"] = str(settings.redis_ssl_ca_file)
    try:
        return redis.Redis.from_url(settings.redis_url, **options)
    except ValueError as error:
        raise ConfigurationError(f"FRESHET_REDIS_URL is not usable: {error}") from error


def _card(item: Item) -> dict[str, Any]:
    fields = {
        "item_id": item.item_id,
        "title": item.title,
        "category": item.category,
        "brand": item.brand,
        "price": item.price,
        "in_stock": item.in_stock,
        "image_url": item.image_url,
    }
    return {name: value for name, value in fields.items() if value not in ("", None)}
