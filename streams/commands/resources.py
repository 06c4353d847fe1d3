"""`freshet resources`: Kubernetes resources that are made from the code instead of being written twice."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.commands.common import guarded
from streams.commands.common import settings as read_settings
from streams.settings import Settings
from streams.topics import TOPICS, Topic

app = typer.Typer(name="resources", help="Kubernetes resources made from the code.", no_args_is_help=True)


def kafka_topics(settings: Settings, cluster: str) -> str:
    """
    Return every topic as a Strimzi `KafkaTopic`, in the order of `streams.topics`.

    The resource is named like the topic; acknowledged writes survive the loss of one broker where there are
    three (`min.insync.replicas` is one less than the replicas, at least 1).
    """
    return "".join(_kafka_topic(topic, settings, cluster) for topic in TOPICS.values())


def _kafka_topic(topic: Topic, settings: Settings, cluster: str) -> str:
    name = topic.full_name(settings)
    config = {**topic.kafka_config(), "min.insync.replicas": str(max(1, settings.replication - 1))}
    # Numbers are written as numbers and words as words, as Strimzi's own examples have it.
    lines = [f"    {key}: {value}" for key, value in sorted(config.items())]
    return "\n".join(
        [
            "---",
            f"# {topic.content}; key: {topic.key}",
            "apiVersion: kafka.strimzi.io/v1",
            "kind: KafkaTopic",
            "metadata:",
            f"  name: {name}",
            "  labels:",
            f"    strimzi.io/cluster: {cluster}",
            "spec:",
            f"  topicName: {name}",
            f"  partitions: {settings.partitions}",
            f"  replicas: {settings.replication}",
            "  config:",
            *lines,
            "",
        ]
    )


@app.callback()
def main() -> None:
    """Kubernetes resources made from the code."""


@app.command()
@guarded
def topics(
    partitions: Annotated[int | None, typer.Option(help="Partitions of each topic [default: the setting].")] = None,
    replication: Annotated[int | None, typer.Option(help="Copies of each record [default: the setting].")] = None,
    cluster: Annotated[str, typer.Option(help="Name of the Strimzi Kafka resource.")] = "kafka",
) -> None:
    """Write the topics as Strimzi KafkaTopic resources to stdout."""
    typer.echo(kafka_topics(read_settings(partitions=partitions, replication=replication), cluster), nl=False)
