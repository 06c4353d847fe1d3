"""
The processes of `freshet up`: Kafka, Redis and one of each role, started once, found again, stopped in order.

A Kafka or Redis that the environment names is used as it is and never stopped.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streams.errors import DependencyError, TopicMismatchError
from streams.kafka.admin import check_topics, create_topics, wait_for_kafka
from streams.local import record as records
from streams.local.kafka import LocalKafka
from streams.local.processes import free_port, spawn, uninterrupted
from streams.local.record import Service
from streams.local.redis import LocalRedis
from streams.settings import ENV_PREFIX, Settings

#: In the order they start; stopped the other way round.
ROLES = ("encoder", "signals", "worker")

#: File in the state folder: how far the demo moved each log in time. It belongs to Kafka's data.
SHIFTS = "demo.json"

#: A first start of the encoder downloads an 84 MB model before it is ready.
READY_TIMEOUT_S = 300.0
#: A role's last commit has `commit_timeout_s` (20 s); this leaves it room.
STOP_TIMEOUT_S = 30.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Readiness:
    """What one process says about itself: `ready`, `starting` with its reason, or `dead`."""

    name: str
    state: str
    detail: str
    service: Service


class Stack:
    """
    The local stack of one state folder.

    Parameters
    ----------
    settings
        As read from the environment; `kafka_bootstrap` and `redis_url` count as external when they were set there.
    say
        Gets one line for each step, for a person who waits.

    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda _line: None) -> None:
        self._asked = settings
        self._say = say
        self._record = records.load(settings)
        self._started: list[str] = []
        self.external_kafka = "kafka_bootstrap" in settings.model_fields_set
        self.external_redis = "redis_url" in settings.model_fields_set

    @property
    def settings(self) -> Settings:
        """The settings with the addresses that are in use."""
        found: dict[str, str] = {}
        if not self.external_kafka and self._record.kafka_bootstrap:
            found["kafka_bootstrap"] = self._record.kafka_bootstrap
        if not self.external_redis and self._record.redis_url:
            found["redis_url"] = self._record.redis_url
        return self._asked.model_copy(update=found)

    def health_port(self, role: str) -> int:
        """Return the port of a role's /readyz and /metrics."""
        return self._record.services[role].port

    def up(self, roles: Iterable[str] = ROLES, options: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """
        Start what does not run, create missing topics and return once every role is ready.

        A role that runs with other settings than these is restarted. When anything fails, or Ctrl-C comes, what
        this call started is stopped again.

        Parameters
        ----------
        roles
            Names out of `ROLES`.
        options
            Settings of single roles where the environment says nothing: role to `FRESHET_NAME` to value.

        Raises
        ------
        DependencyError
            When a process cannot start, dies (with the end of its log) or is not ready in time.
        TopicMismatchError
            When existing topics do not fit.

        """
        with records.lock(self._asked):
            try:
                self._start_kafka()
                self._start_redis()
                self._prepare_topics()
                for role in roles:
                    self._start_role(role, (options or {}).get(role, {}))
                self._wait_ready(tuple(roles))
            except BaseException:
                self._stop(self._started)
                raise

    def stop_started(self) -> None:
        """Stop what `up` of this object started, and nothing that ran before."""
        with records.lock(self._asked):
            self._stop(self._started)

    def down(self) -> list[str]:
        """Stop everything in the record, roles first; return the names of what was running."""
        with records.lock(self._asked):
            running = [name for name in self._record.services if self._record.running(name)]
            self._stop(list(self._record.services))
        return running

    def wipe(self) -> None:
        """Stop everything and remove the local Kafka's data, so that the next start is a first one."""
        self.down()
        for name in ("kafka", "redis", "logs"):
            shutil.rmtree(self._asked.state_dir / name, ignore_errors=True)
        (self._asked.state_dir / SHIFTS).unlink(missing_ok=True)

    def check_alive(self) -> None:
        """
        Look whether every recorded process still runs.

        Raises
        ------
        DependencyError
            When one has ended, with the end of its log.

        """
        for name, service in self._record.services.items():
            if not service.process.alive():
                log = service.process.log
                raise DependencyError(f"the {name} has ended; the end of {log}:\n{service.process.last_lines()}")

    def readiness(self) -> list[Readiness]:
        """Return what each recorded process says, in the order they were started."""
        states = []
        for name, service in self._record.services.items():
            if not service.process.alive():
                states.append(Readiness(name, "dead", service.process.last_lines(1), service))
            elif name in ROLES:
                ready, detail = probe(service.port)
                states.append(Readiness(name, "ready" if ready else "starting", detail, service))
            else:
                states.append(Readiness(name, "ready", "", service))
        return states

    def _start_kafka(self) -> None:
        if self.external_kafka:
            self._record.services.pop("kafka", None)
            wait_for_kafka(self._asked)
            return
        if self._record.running("kafka"):
            return
        self._say("starting Kafka (the first start fetches it)")
        before = self._record.services.get("kafka")
        kafka = LocalKafka(self._asked.state_dir / "kafka", self._asked.cache_dir, port=before.port if before else 9092)
        try:
            kafka.start()
            assert kafka.process is not None
            self._record.kafka_bootstrap = kafka.bootstrap
            self._note("kafka", Service(kafka.process, kafka.port))
        except BaseException:
            kafka.stop()
            raise

    def _start_redis(self) -> None:
        if self.external_redis:
            self._record.services.pop("redis", None)
            return
        if self._record.running("redis"):
            return
        self._say("starting Redis")
        before = self._record.services.get("redis")
        redis = LocalRedis(self._asked.state_dir / "redis", port=before.port if before else 6379)
        try:
            redis.start()
            assert redis.process is not None
            self._record.redis_url = redis.url
            self._note("redis", Service(redis.process, redis.port))
        except BaseException:
            redis.stop()
            raise

    def _prepare_topics(self) -> None:
        if created := create_topics(self.settings):
            self._say(f"created {len(created)} topics")
        if problems := check_topics(self.settings):
            raise TopicMismatchError("; ".join(problems))

    def _start_role(self, role: str, options: Mapping[str, str]) -> None:
        env = self._role_env(options)
        digest = hashlib.sha256(repr(sorted(_freshet_only(env).items())).encode()).hexdigest()
        if (running := self._record.running(role)) is not None:
            if running.options == digest:
                return
            self._say(f"restarting the {role} with other settings")
            running.process.stop(STOP_TIMEOUT_S)
        self._say(f"starting the {role}")
        port = free_port()
        env["FRESHET_HEALTH_PORT"] = str(port)
        # -P: a folder named like one of our packages in the current directory must not win.
        command = [sys.executable, "-P", "-m", "streams.cli", role]
        with uninterrupted():
            process = spawn(role, command, self._asked.state_dir / "logs" / f"{role}.log", env)
            self._note(role, Service(process, port, digest))

    def _role_env(self, options: Mapping[str, str]) -> dict[str, str]:
        settings = self.settings
        return {
            "FRESHET_LOG_FORMAT": "json",
            **options,
            **{name: value for name, value in os.environ.items() if name != "FRESHET_HEALTH_PORT"},
            "FRESHET_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "FRESHET_REDIS_URL": settings.redis_url,
            "FRESHET_STATE_DIR": str(settings.state_dir),
            "FRESHET_CACHE_DIR": str(settings.cache_dir),
        }

    def _wait_ready(self, roles: tuple[str, ...]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = dict.fromkeys(roles, "")
        while waiting:
            self.check_alive()
            for role in list(waiting):
                service = self._record.services[role]
                ready, waiting[role] = probe(service.port)
                if ready:
                    del waiting[role]
                    self._say(f"{role} is ready")
            if waiting and time.monotonic() >= deadline:
                role, detail = next(iter(waiting.items()))
                log = self._record.services[role].process.log
                raise DependencyError(f"the {role} was not ready within {READY_TIMEOUT_S:g} s ({detail}); see {log}")
            time.sleep(_POLL_S)

    def _note(self, name: str, service: Service) -> None:
        self._started.append(name)
        # A restarted service goes to the end: the record keeps the order of starts.
        self._record.services.pop(name, None)
        self._record.services[name] = service
        self._record.save(self._asked)

    def _stop(self, names: Iterable[str]) -> None:
        """Stop in order: roles together, then Redis, then Kafka. The record keeps ports of what is stopped."""
        services = {name: self._record.services[name] for name in names if name in self._record.services}
        stopping = [role for role in ROLES if role in services and services[role].process.alive()]
        for role in stopping:
            self._say(f"stopping the {role}")
        with uninterrupted():
            _stop_together([services[role] for role in stopping])
            for name in ("redis", "kafka"):
                if name in services and services[name].process.alive():
                    self._say(f"stopping {name.capitalize()}")
                    services[name].process.stop(STOP_TIMEOUT_S)
        self._started.clear()


def probe(port: int, timeout_s: float = 2.0) -> tuple[bool, str]:
    """Ask a role's /readyz; return whether it is ready and what it said."""
    try:
        status, body = http_get(port, "/readyz", timeout_s)
    except OSError as error:
        return False, str(error)
    return status == http.HTTPStatus.OK, body.strip()


def http_get(port: int, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
    """
    Get a page of a role on this machine.

    Raises
    ------
    OSError
        When nobody answers in time.

    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"not an HTTP answer: {error!r}") from error
    finally:
        connection.close()


def _freshet_only(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(ENV_PREFIX)}


def _stop_together(services: list[Service]) -> None:
    """Send SIGTERM to all, then give them one shared deadline."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for service in services:
        service.process.signal(signal.SIGTERM)
    for service in services:
        service.process.stop(max(0.0, deadline - time.monotonic()))
