"""F27: a worker that is killed while a user is being erased."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from streams.settings import Settings
from streams.wire.erasures import decode_receipt
from tests.support.forgotten import cached, check_forgotten, clicks, freshet, listed, newest, wait_for
from tests.support.roles import RoleProcess
from tests.support.shop import producer, send, stock
from tests.support.verifier import read_topic

pytestmark = [pytest.mark.integration, pytest.mark.faults]


@pytest.mark.row("F27", "killed on an erasure", "SIGKILL before, in and behind it", "I2 I5 I9")
@pytest.mark.matrix
@pytest.mark.timeout(300)
def test_killed_right_after_the_request(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    """
    Killed while a request is on its way, before, in or behind its transaction: the user is gone, once.

    Redis held a list when the worker died, and forgets it whoever has to tell it.
    """
    settings = settings_for(partitions=2, kafka_session_timeout_s=8, commit_timeout_s=5)
    stock(settings)
    cache = redis.Redis.from_url(settings.redis_url)
    out = producer(settings)
    with RoleProcess("worker", settings, tmp_path) as worker:
        worker.ready()
        for number, pause_s in enumerate((0.0, 0.15, 0.4)):
            user_id = f"gone{number}"
            for one in clicks(user_id, 4):
                send(out, settings, one)
            out.flush(30)
            listed(cache, settings, user_id, 4)
            assert 0 == freshet(settings, "erase", user_id, "--request-id", f"r{number}").exit_code
            time.sleep(pause_s)
            worker.kill()
            worker.start().ready()
            wait_for(lambda key=f"r{number}": newest(settings, "erasure-receipts", key), "a receipt")  # type: ignore[misc]  # bound now
            wait_for(lambda user=user_id: cached(cache, settings, user).get("erased"), "Redis forgets")  # type: ignore[misc]  # bound now
        time.sleep(1)
        receipts = [decode_receipt(read.value or b"") for read in read_topic(settings, "erasure-receipts")]

        assert ["r0", "r1", "r2"] == sorted(receipt.request_id for receipt in receipts)
        for receipt in receipts:
            check_forgotten(settings, cache, f"gone{receipt.request_id[1:]}", receipt.erased_at)
    cache.close()
