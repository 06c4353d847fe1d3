"""A worker with a planted bug, decoding fails on events with one item: `python -m tests.support.planted worker`."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from streams import cli
from streams.interests import ingest
from streams.wire.events import decode_event

#: The item that our own code cannot stand.
PLANTED = 424_242


def main() -> None:
    """Run the command line with the bug in place."""
    with patch.object(ingest, "decode_event", _decode):
        cli.main()


def _decode(type_code: int, key: bytes | None, value: bytes | None, *rest: Any) -> Any:
    if value is not None and str(PLANTED).encode() in value:
        raise ZeroDivisionError("planted")
    return decode_event(type_code, key, value, *rest)


if __name__ == "__main__":
    main()
