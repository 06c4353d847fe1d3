"""Every client of the streaming roles over TLS, SCRAM and a Redis ACL user, from the one settings group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import redis

from streams.kafka.admin import create_topics
from streams.local.kafka import LocalKafka
from streams.local.redis import LocalRedis
from streams.settings import Settings
from tests.support.roles import RoleProcess
from tests.support.shop import Sent, producer, send, stock

pytestmark = pytest.mark.integration

_PASSWORD = "not-a-real-secret"  # noqa: S105  # of a Redis that lives for this test
#: What the README grants the worker.
_COMMANDS = (
    "+get +set +getrange +hget +hgetall +hset +del +expire +evalsha +script|load +ping +hello +auth +client|setname"
)


@pytest.fixture
def settings(tmp_path: Path, redis_server: LocalRedis) -> Iterator[Settings]:
    """Settings of a Kafka that speaks nothing but SASL_SSL, and of a Redis user who may touch Freshet's keys only."""
    kafka = LocalKafka(tmp_path / "kafka", Settings().cache_dir, secure=True)
    admin = redis.Redis.from_url(redis_server.url)
    try:
        kafka.start()
        admin.execute_command(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            *f"ACL SETUSER freshet reset on >{_PASSWORD} ~secure:freshet:* {_COMMANDS}".split()
        )
        made = Settings(
            namespace="secure", partitions=2, redis_url=redis_server.url, redis_username="freshet",
            redis_password=_PASSWORD, **kafka.settings(),
        )  # fmt: skip
        create_topics(made)
        yield made
    finally:
        admin.acl_deluser("freshet")
        admin.close()
        kafka.stop()


def test_a_click_makes_a_list_over_secured_connections(settings: Settings, tmp_path: Path) -> None:
    """Faust, librdkafka and kafka-python log in and trust the broker; Redis takes the writes; no secret is logged."""
    stock(settings)
    with RoleProcess("worker", settings, tmp_path) as worker, RoleProcess("signals", settings, tmp_path) as signals:
        worker.ready()
        signals.ready()
        out = producer(settings)
        event = {"event_id": "e", "user_id": "u", "item_id": "i1", "ts": round(time.time() * 1000)}
        send(out, settings, Sent("clicks", event))
        assert out.flush(30) == 0
        cache = redis.Redis.from_url(settings.redis_url, username="freshet", password=_PASSWORD)
        end = time.monotonic() + 20
        while (value := cache.get("secure:freshet:rec:u")) is None:
            assert time.monotonic() < end, worker.tail()
            time.sleep(0.05)
        cache.close()
        logs = worker.tail(1_000_000) + signals.tail(1_000_000)

        assert {"clicks": 1} == orjson.loads(bytes(value))["events_applied"]  # type: ignore[arg-type]  # synchronous
        assert _PASSWORD not in logs
        assert settings.kafka_password.get_secret_value() not in logs


def test_a_wrong_password_ends_the_start_with_a_sentence(settings: Settings, tmp_path: Path) -> None:
    """Refused credentials are no reason to retry for ever: the worker says so and exits non-zero."""
    wrong = Settings(**(dict(settings) | {"kafka_password": "wrong", "kafka_timeout_s": 8.0}))
    with RoleProcess("worker", wrong, tmp_path) as worker:
        assert 4 == worker.wait(60)
        assert "freshet:" in worker.tail()
