"""The batched transport's own rules; what it does with a broker is in tests/integration."""

from __future__ import annotations

import faust
import pytest
from faust.transport.drivers import by_url
from yarl import URL

from streams.errors import UnsupportedFaustError
from streams.kafka import transport
from tests.support.records import run_of


def test_faust_finds_the_transport_by_its_scheme() -> None:
    """`freshet://` leads to the batched transport through the entry point."""
    assert transport.Transport is by_url(URL("freshet://127.0.0.1:9092"))


def test_a_batched_topic_on_another_transport_is_refused() -> None:
    """Runs would never come, so the app does not start."""
    app = faust.App("other", broker="kafka://127.0.0.1:9092", web_enabled=False)

    with pytest.raises(UnsupportedFaustError, match="freshet://"):
        transport.batched_topic(app, "clicks")


def test_an_unchecked_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The overrides were read against certain versions; another one ends the start with its name."""
    monkeypatch.setattr(transport, "version", lambda package: {"faust-streaming": "0.16.0"}.get(package, "0.14.0"))

    with pytest.raises(UnsupportedFaustError, match=r"faust-streaming 0\.16\.0"):
        transport.check_versions()


def test_room_is_given_back_once() -> None:
    """A run that is done twice frees one place only."""
    freed: list[transport.Run] = []
    run = run_of("clicks", (0, 1))
    run._done = freed.append
    run.done()
    run.done()

    assert [run] == freed
