"""The local Kafka and Redis: they come back with their data, keep their ports, and refuse strangers when secure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Producer
from pydantic import SecretStr

from streams.datasets.replay import load_items
from streams.errors import DependencyError
from streams.kafka.admin import check_topics, create_topics
from streams.kafka.clients import librdkafka_config
from streams.local.kafka import LocalKafka, kafka_jars
from streams.local.redis import LocalRedis
from streams.settings import Settings
from streams.topics import full_name
from streams.wire.items import Item
from tests.support.services import running_kafka

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A Kafka that wants TLS and a user."""
    kafka = LocalKafka(tmp_path_factory.mktemp("secure"), Settings().cache_dir, secure=True)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()


def test_kafka_keeps_port_and_data_over_stop_and_kill(tmp_path: Path) -> None:
    """Topics are there after an orderly stop and after SIGKILL, at the same address."""
    with running_kafka(tmp_path) as kafka:
        settings = Settings(**kafka.settings(), partitions=1)
        create_topics(settings)
        for end in (kafka.stop, kafka.kill):
            end()
            with pytest.raises(DependencyError):
                check_topics(settings.model_copy(update={"kafka_timeout_s": 0.2}))
            kafka.start()
            assert settings.kafka_bootstrap == kafka.bootstrap
            assert [] == check_topics(settings)


def test_two_that_want_one_port_both_start(tmp_path: Path) -> None:
    """Each is sure that it talks to its own broker; the slower one moves to another port."""
    wanted = 31_999
    nodes = [LocalKafka(tmp_path / name, Settings().cache_dir, port=wanted) for name in ("a", "b")]
    threads = [threading.Thread(target=node.start) for node in nodes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert all(node.process is not None and node.process.alive() for node in nodes)
        assert nodes[0].bootstrap != nodes[1].bootstrap
    finally:
        for node in nodes:
            node.stop()


def test_tls_and_scram_through_the_settings(secure: LocalKafka) -> None:
    """kafka-python and librdkafka both get in with the settings group, and the data arrives."""
    settings = Settings(**secure.settings(), partitions=1)
    create_topics(settings)

    assert [] == check_topics(settings)
    assert 1 == load_items(settings, [Item("i1", title="Mug")])


def test_a_secure_kafka_refuses_strangers(secure: LocalKafka) -> None:
    """A wrong password and a missing authority are told in a sentence, not waited for beyond the timeout."""
    known = secure.settings() | {"kafka_timeout_s": 3.0}

    with pytest.raises(DependencyError, match=r"has a certificate that is not trusted .*FRESHET_KAFKA_SSL_CA_FILE"):
        check_topics(Settings(**(known | {"kafka_ssl_ca_file": None})))
    wrong = known | {"kafka_password": SecretStr("wrong")}
    with pytest.raises(DependencyError, match=f"Kafka at {secure.bootstrap} did not answer"):
        check_topics(Settings(**wrong))
    producer = Producer(librdkafka_config(Settings(**wrong), delivery_timeout_ms=2_000) | {"log_level": 0})
    failures: list[object] = []
    producer.produce(full_name(Settings(), "items"), b"x", on_delivery=lambda error, _message: failures.append(error))
    producer.flush(10)
    assert [True] == [failure is not None for failure in failures]


def test_redis_comes_back_empty_on_its_port(tmp_path: Path) -> None:
    """It is a cache: nothing is kept, the address is."""
    server = LocalRedis(tmp_path)
    server.start()
    url = server.url
    try:
        with redis.Redis.from_url(url) as client:
            client.set("k", "v")
        server.kill()
        server.start()
        assert url == server.url
        with redis.Redis.from_url(url) as client:
            assert client.get("k") is None
    finally:
        server.stop()


def test_missing_tools_are_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Maven or Java the sentence says what to install and what else one can do."""
    jars = kafka_jars(Settings().cache_dir)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with pytest.raises(DependencyError, match=r"needs Maven .* set FRESHET_KAFKA_BOOTSTRAP"):
        LocalKafka(tmp_path / "k", tmp_path / "cache").start()
    with pytest.raises(DependencyError, match=r"needs Java 17 or later; install it .* set FRESHET_KAFKA_BOOTSTRAP"):
        LocalKafka(tmp_path / "k", jars.parent).start()
    with pytest.raises(DependencyError, match=r"redis-server was not found; install it .* set FRESHET_REDIS_URL"):
        LocalRedis(tmp_path / "r").start()
