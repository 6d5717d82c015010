"""``quill topics``: what travels on Kafka, from the contracts this tool was built with; nothing is asked."""

import json
from typing import Annotated, Any

import typer
from quill_contracts.registry import message_type
from quill_contracts.topics import TOPICS, Topic

from quill_cli.printing import show_table


def topics(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False) -> None:
    """List every topic: its key, its one producer, its readers and its message."""
    if as_json:
        print(json.dumps([topic_document(topic) for topic in TOPICS], indent=2))
        return
    show_table(
        "Topics",
        ("topic", "kind", "key: producer → readers"),
        [(t.name, t.kind, f"{t.key}: {t.producer} → {', '.join(t.readers)}") for t in TOPICS],
        whole=("topic", "kind"),
        empty="No topic is registered.",
    )


def topic_document(topic: Topic) -> dict[str, Any]:
    """A topic for machines."""
    return {
        "name": topic.name,
        "message": message_type(topic.name).__name__,
        "key": topic.key,
        "kind": topic.kind,
        "producer": topic.producer,
        "readers": list(topic.readers),
        "partitions": topic.partitions,
        "config": topic.config,
        "dead_letters": topic.dead,
        "summary": topic.summary,
    }
