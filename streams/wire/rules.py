"""Rules of the shop on the wire: what must not be listed, what is pinned to a slot, what is put forward or back."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from streams.wire.events import parse_time_ms
from streams.wire.items import decode_of_item
from streams.wire.limits import MAX_EPOCH_MS, Rejected, RejectedError, check_number, check_text

#: A rule holds a few short fields.
MAX_RULE_BYTES: Final = 4_096
MAX_REASON_CHARS: Final = 100
#: The longest list there can be.
MAX_SLOT: Final = 100
#: Scores of the strongest items are about 1: a boost of 10 is above or below everything.
MAX_BOOST: Final = 10.0
#: Why an item is blocked when the rule does not say.
BLOCKED: Final = "blocked"

_BOUNDS: Final = frozenset({"from", "until"})


class Span(msgspec.Struct, frozen=True, gc=False):
    """
    When a part of a rule holds, ms since the epoch, the end excluded.

    >>> Span(10, 20).holds(10), Span(10, 20).holds(20)
    (True, False)
    """

    from_ms: int = 0
    until_ms: int = MAX_EPOCH_MS

    def holds(self, now_ms: int) -> bool:
        """Whether it holds at a time."""
        return self.from_ms <= now_ms < self.until_ms

    def fields(self) -> dict[str, Any]:
        """Return the bounds that were given, as they stand in JSON."""
        given = {"from": self.from_ms} if self.from_ms else {}
        return given | ({"until": self.until_ms} if self.until_ms < MAX_EPOCH_MS else {})


class Block(msgspec.Struct, frozen=True, gc=False):
    """The item must not be listed; `reason` is told to front ends."""

    reason: str = BLOCKED
    span: Span = Span()


class Pin(msgspec.Struct, frozen=True, gc=False):
    """The item has a slot of every list, 1 is the first, if the user may have the item at all."""

    slot: int
    span: Span = Span()


class Boost(msgspec.Struct, frozen=True, gc=False):
    """What is added to the item's score when lists are made; below 0 puts it back."""

    by: float
    span: Span = Span()


class Rule(msgspec.Struct, frozen=True, gc=False):
    """All rules of one item."""

    item_id: str
    block: Block | None = None
    pin: Pin | None = None
    boost: Boost | None = None

    def encode(self) -> bytes:
        """Return the JSON value of a record on `item-rules`; its key is the item id."""
        fields: dict[str, Any] = {"item_id": self.item_id}
        if self.block is not None:
            fields["block"] = {"reason": self.block.reason, **self.block.span.fields()}
        if self.pin is not None:
            fields["pin"] = {"slot": self.pin.slot, **self.pin.span.fields()}
        if self.boost is not None:
            fields["boost"] = {"by": self.boost.by, **self.boost.span.fields()}
        return orjson.dumps(fields)


def decode_rule(key: bytes | None, value: bytes | None) -> Rule | str | Rejected:
    """
    Read a record of `item-rules`.

    A field that is not known is refused, not ignored: a rule that is read in half could list what must not be listed.

    Returns
    -------
    Rule, or the item id alone for a tombstone (no rule any more), or `Rejected`.

    >>> decode_rule(b"i1", b'{"block": {"reason": "recall"}}').block.reason
    'recall'
    >>> decode_rule(b"i1", b'{"blocked": true}').error
    'a rule has no field blocked; it has block, pin, boost'
    >>> decode_rule(b"i1", None)
    'i1'

    """
    return decode_of_item(key, value, "a rule", MAX_RULE_BYTES, _parse)


def _parse(item_id: str, fields: dict[str, Any]) -> Rule:
    fields = {name: part for name, part in fields.items() if name != "item_id"}
    if strange := sorted(set(fields) - {"block", "pin", "boost"}):
        raise RejectedError("wrong_type", f"a rule has no field {strange[0][:40]}; it has block, pin, boost")
    fields = {name: part for name, part in fields.items() if part is not None}
    if not fields:
        raise RejectedError("missing_field", "a rule says block, pin or boost; a record without a value takes it back")
    block, pin, boost = (_part(fields, name, what) for name, what in _WHATS.items())
    return Rule(
        item_id,
        None if block is None else Block(_reason(block.get("reason", BLOCKED)), _span(block, "block")),
        None if pin is None else Pin(_slot(pin["slot"]), _span(pin, "pin")),
        None if boost is None else Boost(_by(boost["by"]), _span(boost, "boost")),
    )


#: What each part of a rule has to say; a block need not say why.
_WHATS: Final = {"block": "reason", "pin": "slot", "boost": "by"}


def _part(fields: dict[str, Any], name: str, what: str) -> dict[str, Any] | None:
    """Return a part of the rule, None where it is not there."""
    part = fields.get(name)
    if part is None:
        return None
    if not isinstance(part, dict):
        raise RejectedError("wrong_type", f"{name} must be an object, not {type(part).__name__}")
    if strange := sorted(set(part) - {what} - _BOUNDS):
        raise RejectedError("wrong_type", f"{name} has no field {strange[0][:40]}; it has {what}, from, until")
    if name != "block" and what not in part:
        raise RejectedError("missing_field", f"{name}.{what} is missing")
    return part


def _reason(value: Any) -> str:
    reason = check_text(value, "block.reason", MAX_REASON_CHARS)
    if not reason or not reason.isprintable():
        raise RejectedError("wrong_type", "block.reason must be a text without control characters")
    return reason


def _slot(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SLOT:
        raise RejectedError("wrong_type", f"pin.slot must be a whole number in 1..{MAX_SLOT}")
    return value


def _by(value: Any) -> float:
    return check_number(value, "boost.by", -MAX_BOOST, MAX_BOOST)


def _span(part: dict[str, Any], name: str) -> Span:
    bounds = {}
    for bound in sorted(_BOUNDS & set(part)):
        try:
            bounds[f"{bound}_ms"] = parse_time_ms(part[bound])
        except RejectedError as error:
            text = error.rejected.error.removeprefix("ts ")
            raise RejectedError(error.rejected.reason, f"{name}.{bound} {text}") from None
    span = Span(**bounds)
    if span.from_ms >= span.until_ms:
        raise RejectedError("bad_time", f"{name} ends before it begins")
    return span
