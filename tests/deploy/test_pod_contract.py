"""
Each pod of the development overlay as a local process: its command, its environment, its probes, its end.

The nearest thing to a cluster: what the kubelet would do is done to real processes against a real Kafka and Redis.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.encoding.source import model_folder
from streams.local.kafka import LocalKafka
from streams.local.processes import free_port
from streams.local.redis import LocalRedis
from streams.settings import Settings
from tests.support.rendered import Rendered

pytestmark = pytest.mark.integration

#: Three processes import torch on two cores, one loads a model, and two compile what only the image brings along.
READY_TIMEOUT_S = 240.0


@dataclass
class Pod:
    """A running container of the overlay."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> int:
        """Return the HTTP status of a probe's path, 0 while nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def wait_for(self, path: str) -> None:
        """Probe until it succeeds; a process that ended or takes too long fails with its log."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self.get(path) != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)


@pytest.fixture
def services(kafka: LocalKafka, redis_server: LocalRedis) -> dict[str, str]:
    """Where Kafka, Redis and the model are, as the pods' environment says it; the image has the model inside."""
    settings = Settings()
    model_folder(settings)
    return {
        "FRESHET_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "FRESHET_REDIS_URL": redis_server.url,
        "FRESHET_CACHE_DIR": str(settings.cache_dir),
    }


def start(rendered: Rendered, name: str, services: dict[str, str], folder: Path) -> Pod:
    """Run a container's arguments in its own environment and nothing else of this machine's."""
    scratch, home = folder / f"{name}-tmp", folder / f"{name}-home"
    scratch.mkdir()
    port = free_port()
    environment = {
        **rendered.environment(name),
        **services,
        "FRESHET_STATE_DIR": str(scratch / "freshet"),
        "FRESHET_HEALTH_PORT": str(port),
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "torchinductor"),
    }
    command = [str(Path(sys.executable).with_name("freshet")), *rendered.containers()[name]["args"]]
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environment, cwd=scratch, stdout=sink, stderr=subprocess.STDOUT)
    return Pod(name, port, process, log)


def test_pods_start_answer_and_end(kustomized: dict[str, Rendered], services: dict[str, str], tmp_path: Path) -> None:
    """
    The Job makes the topics, each role becomes ready, and SIGTERM ends it in order within its grace period.

    Nothing is written to the home folder, which the image does not have.
    """
    dev = kustomized["overlays/dev"]
    job = start(dev, "topics", services, tmp_path)
    assert job.process.wait(READY_TIMEOUT_S) == 0, job.log.read_text()

    pods: list[Pod] = []
    try:
        pods += [start(dev, workload["metadata"]["name"], services, tmp_path) for workload in dev.workloads()]
        for pod in pods:
            probes = dev.containers()[pod.name]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                pod.wait_for(probes[probe]["httpGet"]["path"])
            assert pod.get("/metrics") == 200
        for pod in pods:
            pod.process.send_signal(signal.SIGTERM)
        for pod in pods:
            grace_s = dev.pods()[pod.name]["spec"]["terminationGracePeriodSeconds"]
            assert pod.process.wait(grace_s) == 0, pod.log.read_text()
    finally:
        for pod in pods:
            if pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()

    assert not [path for path in tmp_path.glob("*-home") if path.exists()]
