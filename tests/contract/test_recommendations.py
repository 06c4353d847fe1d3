"""Lists on the wire: the JSON byte for byte, `version` first."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from streams.wire.recommendations import (
    AsOf,
    Assigned,
    Because,
    RankedItem,
    Recommendation,
    Trigger,
    decode_recommendation,
    default_key,
    erased,
    topic_key,
)

LIST = Recommendation(
    version=2**32 + 1,
    user_id="u1",
    surface="home",
    recommendation_id="r1",
    generated_at=1_767_225_600_250,
    event_ts=1_767_225_600_000,
    ingested_at=1_767_225_600_100,
    policy="default-1",
    model="0123456789abcdef",
    as_of=AsOf({"clicks": 12, "views": 40}, catalogue=3, signals=2),
    experiments={"ranking": Assigned("b", 9_999, 4)},
    items=(
        RankedItem("i\u00e9", 1, 0.75, "vector", (Because("i7", "clicks", 0.5),), 1.0),
        RankedItem("i2", 2, 0.1, "trend"),
    ),
    trigger=Trigger("event", "clicks", 0, 11, "e1"),
    events_applied={"views": 3, "clicks": 1},
)
GOLDEN = (
    '{"version":4294967297,"schema":1,"user_id":"u1","surface":"home","recommendation_id":"r1",'
    '"generated_at":1767225600250,"event_ts":1767225600000,"ingested_at":1767225600100,"policy":"default-1",'
    '"model":"0123456789abcdef","as_of":{"offsets":{"clicks":12,"views":40},"catalogue":3,"signals":2,"rules":0},'
    '"experiments":{"ranking":{"variant":"b","bucket":9999,"revision":4,"forced":false}},'
    '"items":[{"item_id":"i\u00e9","rank":1,"score":0.75,"source":"vector",'
    '"because":[{"item_id":"i7","type":"clicks","share":0.5}],"propensity":1.0},'
    '{"item_id":"i2","rank":2,"score":0.1,"source":"trend","because":[],"propensity":1.0}],'
    '"trigger":{"kind":"event","topic":"clicks","partition":0,"offset":11,"event_id":"e1"},'
    '"events_applied":{"views":3,"clicks":1},"stale":false}'
).encode()


def test_golden_json() -> None:
    """A list gives these bytes: consumers and the cache's script rely on the names and on `version` first."""
    assert GOLDEN == LIST.encode()


def test_round_trip() -> None:
    """What was published reads back equal."""
    assert decode_recommendation(GOLDEN) == LIST


def test_version_stands_first_in_every_cached_value() -> None:
    """The cache compares versions by their place in the text, in lists and in the mark of an erased user alike."""
    assert GOLDEN.startswith(b'{"version":4294967297,')
    assert erased(7) == b'{"version":7,"erased":true}'


def test_unknown_fields_are_ignored() -> None:
    """A reader of this version reads lists that say more."""
    assert decode_recommendation(orjson.dumps({**orjson.loads(GOLDEN), "later": [1]})) == LIST


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", GOLDEN[:-1], GOLDEN.replace(b'"rank":1', b'"rank":"1"')])
def test_not_a_list(value: bytes) -> None:
    """Anything else is a DecodeError."""
    with pytest.raises(msgspec.DecodeError):
        decode_recommendation(value)


def test_keys() -> None:
    """The main surface has the user's key, others add theirs behind a byte that no id can hold."""
    assert topic_key("u", "home", "home") == b"u"
    assert topic_key("u", "cart", "home") == b"u\x1fcart"
    assert default_key("home") == b"\x1fhome"
