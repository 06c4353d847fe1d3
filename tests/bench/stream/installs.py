"""What peers need and Freshet does not, kept in the cache: an environment of Python packages, Kafka Streams' jars."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from streams.errors import DependencyError
from streams.local.environments import environment, run_tool

_HERE = Path(__file__).parent
REQUIREMENTS = _HERE / "peers" / "requirements.txt"
POM = _HERE / "pom.xml"
_TIMEOUT_S = 600.0


def peers_python(cache_dir: Path, requirements: Path = REQUIREMENTS) -> Path:
    """
    Return the Python of an environment of peers; the first call makes it with uv.

    Raises
    ------
    DependencyError
        When uv is missing or a package cannot be installed.

    """
    return environment(cache_dir, "bench", ["-r", str(requirements)], requirements.read_bytes())


def streams_jars(cache_dir: Path) -> Path:
    """
    Return the folder with Kafka Streams' jars; the first call has Maven fetch them.

    Raises
    ------
    DependencyError
        When Maven or a Java compiler is missing, or Maven fails.

    """
    if shutil.which("javac") is None:
        raise DependencyError("the Kafka Streams peer needs a JDK 17 or later; install openjdk-17-jdk-headless")
    target = cache_dir / f"kafka-streams-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if target.exists():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyError("the Kafka Streams peer needs Maven to fetch its jars; install it (package maven)")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".streams-") as scratch:
        jars = Path(scratch) / "jars"
        fetch = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        run_tool(fetch, "fetching Kafka Streams' jars", Path(scratch), _TIMEOUT_S)
        jars.rename(target)
    return target


def versions(cache_dir: Path) -> dict[str, str]:
    """Return the versions of the peers that are installed, by name."""
    frozen = subprocess.run(
        [peers_python(cache_dir), "-c", _VERSIONS], check=True, capture_output=True, text=True, timeout=60
    )
    found = dict(line.split(" ", 1) for line in frozen.stdout.splitlines())
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    for dependency in ET.parse(POM).getroot().iterfind("m:dependencies/m:dependency", space):  # noqa: S314 -- our own
        found[dependency.findtext("m:artifactId", "", space)] = dependency.findtext("m:version", "", space)
    return found


_VERSIONS = """
from importlib.metadata import version
for name in ("quixstreams", "bytewax", "confluent-kafka"):
    print(name, version(name))
"""
