"""Rules on the wire: what a record of `item-rules` says, and what is refused for which reason."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.wire.limits import MAX_EPOCH_MS, MIN_EPOCH_MS, Rejected
from streams.wire.rules import MAX_BOOST, MAX_RULE_BYTES, MAX_SLOT, Block, Boost, Pin, Rule, Span, decode_rule

FROM_MS, UNTIL_MS = 1_700_000_000_000, 1_800_000_000_000

FULL = {
    "item_id": "i1",
    "block": {"reason": "recall", "from": FROM_MS, "until": UNTIL_MS},
    "pin": {"slot": 2, "until": "2027-01-15T08:00:00Z"},
    "boost": {"by": -0.5},
}

BAD: list[tuple[str, Any, str]] = [
    ("not_json", b"{", "not JSON"),
    ("not_object", [], "one JSON object"),
    ("missing_field", {}, "a rule says"),
    ("missing_field", {"block": None}, "a rule says"),
    ("missing_field", {"pin": {}}, "pin.slot is missing"),
    ("missing_field", {"boost": {"from": FROM_MS}}, "boost.by is missing"),
    ("key_mismatch", {"item_id": "i2", "block": {}}, "not the item_id"),
    ("wrong_type", {"blocked": True}, "no field blocked"),
    ("wrong_type", {"block": True}, "block must be an object"),
    ("wrong_type", {"block": {"till": 5}}, "block has no field till"),
    ("wrong_type", {"block": {"reason": 5}}, "block.reason"),
    ("wrong_type", {"block": {"reason": "a\nb"}}, "control characters"),
    ("wrong_type", {"pin": {"slot": 0}}, "pin.slot"),
    ("wrong_type", {"pin": {"slot": True}}, "pin.slot"),
    ("wrong_type", {"pin": {"slot": 1.5}}, "pin.slot"),
    ("wrong_type", {"boost": {"by": MAX_BOOST + 1}}, "boost.by"),
    ("too_long", {"block": {"reason": "x" * 101}}, "block.reason"),
    ("bad_time", {"block": {"until": 1_700_000_000}}, "block.until must be milliseconds"),
    ("bad_time", {"block": {"from": "soon"}}, "block.from is not ISO 8601"),
    ("bad_time", {"block": {"from": UNTIL_MS, "until": FROM_MS}}, "ends before it begins"),
    ("oversize", {"block": {"reason": "x" * MAX_RULE_BYTES}}, "are allowed"),
]


def test_a_full_rule_is_read_field_by_field() -> None:
    """Every field means what the README says; times are ms or ISO 8601."""
    assert decode_rule(b"i1", orjson.dumps(FULL)) == Rule(
        "i1", Block("recall", Span(FROM_MS, UNTIL_MS)), Pin(2, Span(until_ms=UNTIL_MS)), Boost(-0.5)
    )


def test_the_golden_record() -> None:
    """The bytes of a rule stay what they are: shops and older workers read them."""
    rule = Rule("i1", Block(), Pin(1, Span(from_ms=FROM_MS)), Boost(0.25, Span(until_ms=UNTIL_MS)))
    assert rule.encode() == (
        b'{"item_id":"i1","block":{"reason":"blocked"},"pin":{"slot":1,"from":1700000000000},'
        b'"boost":{"by":0.25,"until":1800000000000}}'
    )


@pytest.mark.parametrize(("reason", "fields", "words"), BAD)
def test_what_is_refused(reason: str, fields: Any, words: str) -> None:
    """A record that cannot be used whole is refused whole, with the reason and the field."""
    rejected = decode_rule(b"i1", fields if isinstance(fields, bytes) else orjson.dumps(fields))
    assert isinstance(rejected, Rejected)
    assert (reason, True) == (rejected.reason, words in rejected.error), rejected


def test_keys() -> None:
    """A tombstone names its item; a record without a key, or with one that is no id, is refused."""
    assert "i1" == decode_rule(b"i1", None)
    for key, reason in ((None, "null_key"), (b"\xff", "bad_key"), (b"", "bad_id")):
        rejected = decode_rule(key, b"{}")
        assert isinstance(rejected, Rejected)
        assert reason == rejected.reason


spans = st.builds(
    lambda bounds: Span(*sorted(bounds)),
    st.lists(st.integers(MIN_EPOCH_MS, MAX_EPOCH_MS), min_size=2, max_size=2, unique=True),
) | st.just(Span())
rules = st.builds(
    Rule,
    st.just("i1"),
    st.none() | st.builds(Block, st.text('ab é"\\', min_size=1, max_size=20), spans),
    st.none() | st.builds(Pin, st.integers(1, MAX_SLOT), spans),
    st.none() | st.builds(Boost, st.floats(-MAX_BOOST, MAX_BOOST), spans),
).filter(lambda rule: any((rule.block, rule.pin, rule.boost)))


@given(rules)
def test_what_is_written_is_read(rule: Rule) -> None:
    """Encoding and decoding lose nothing."""
    assert decode_rule(b"i1", rule.encode()) == rule


@given(st.binary(max_size=60) | st.builds(orjson.dumps, st.dictionaries(st.sampled_from([*FULL]), st.integers(0, 9))))
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    """Whatever comes is a rule or a refusal, never an exception."""
    assert isinstance(decode_rule(b"i1", value), Rule | Rejected)
