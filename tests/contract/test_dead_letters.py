"""Dead letters: original bytes as the value, everything else in headers."""

from __future__ import annotations

import pytest

from streams.errors import RecordFormatError
from streams.wire.dead_letters import DeadLetter, Headers
from streams.wire.limits import Rejected

REJECTED = Rejected("not_json", "not JSON: unexpected end")
LETTER = DeadLetter.of(REJECTED, "shop.clicks", 3, 42, 1_767_225_600_000, b"u\xff", b"{")
GOLDEN: Headers = [
    ("topic", b"shop.clicks"),
    ("partition", b"3"),
    ("offset", b"42"),
    ("reason", b"not_json"),
    ("error", b"not JSON: unexpected end"),
    ("time", b"1767225600000"),
    ("key", b"u\xff"),
]


def test_golden_headers() -> None:
    """Names, order and texts of the headers."""
    assert GOLDEN == LETTER.headers()


@pytest.mark.parametrize(("key", "value"), [(b"u\xff", b"{"), (None, b"{"), (b"u", None), (b"", b"")])
def test_round_trip(key: bytes | None, value: bytes | None) -> None:
    """Key and value come back as they were; an absent key is not an empty one."""
    letter = DeadLetter.of(REJECTED, "clicks", 0, 0, 1, key, value)
    assert letter == DeadLetter.from_record(letter.headers(), value)


def test_long_error_is_cut() -> None:
    """The sentence takes at most 1,000 bytes, cut anywhere."""
    letter = DeadLetter.of(Rejected("bug", "\u20ac" * 1_000), "clicks", 0, 0, 1, None, b"")
    assert len(dict(letter.headers())["error"]) == 1_000
    assert DeadLetter.from_record(letter.headers(), b"").error.startswith("\u20ac" * 333)


@pytest.mark.parametrize("missing", ["topic", "partition", "offset", "reason", "error", "time"])
def test_not_a_dead_letter(missing: str) -> None:
    """A record without our headers is refused by name."""
    with pytest.raises(RecordFormatError, match=missing):
        DeadLetter.from_record([header for header in GOLDEN if header[0] != missing], b"{")
