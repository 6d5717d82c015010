"""JSON Schema per message and one AsyncAPI document, generated from the registry and committed.

``python -m quill_contracts.documents`` writes them; a test fails when the files are not what this writes.
"""

import json
import sys
from pathlib import Path
from typing import Any

from quill_contracts.dead_letters import DeadLetter
from quill_contracts.registry import MESSAGES
from quill_contracts.topics import DEAD_SUFFIX, TOPICS, Topic

PACKAGE_ROOT = Path(__file__).parents[2]
ASYNCAPI_VERSION = "3.0.0"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(topic_name: str) -> dict[str, Any]:
    """What a record's value on this topic looks like to a reader: newer producers may add fields."""
    return {"$schema": DIALECT, **MESSAGES[topic_name].model_json_schema(mode="validation")}


def asyncapi() -> dict[str, Any]:
    """Every topic, its key, its producer, its readers and its message."""
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Quill",
            "version": "1",
            "description": "What Quill's services say to each other and to everyone on the bus.",
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS}
        | {topic.dead: _dead_channel(topic) for topic in TOPICS},
        "operations": {operation: body for topic in TOPICS for operation, body in _operations(topic).items()},
        "components": {
            "schemas": {model.__name__: json_schema(name) for name, model in MESSAGES.items()}
            | {"DeadLetter": {"$schema": DIALECT, **DeadLetter.model_json_schema()}}
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    model = MESSAGES[topic.name].__name__
    return {
        "address": topic.name,
        "description": topic.summary,
        "messages": {
            model: {
                "name": model,
                "contentType": "application/json",
                "payload": {"$ref": f"#/components/schemas/{model}"},
                "x-kafka-key": topic.key,
            }
        },
        "bindings": {
            "kafka": {"topic": topic.name, "partitions": topic.partitions, "topicConfiguration": topic.config}
        },
    }


def _dead_channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.dead,
        "description": f"Records of {topic.name} that could not be applied, with their bytes and the reason.",
        "messages": {
            "DeadLetter": {
                "name": "DeadLetter",
                "contentType": "application/json",
                "payload": {"$ref": "#/components/schemas/DeadLetter"},
            }
        },
    }


def _operations(topic: Topic) -> dict[str, Any]:
    channel = {"$ref": f"#/channels/{topic.name}"}
    return {
        f"publish {topic.name}": {"action": "send", "channel": channel, "x-producer": topic.producer},
        f"read {topic.name}": {"action": "receive", "channel": channel, "x-readers": list(topic.readers)},
    }


def documents() -> dict[Path, str]:
    """Every generated file: its path below the package and its text."""
    texts = {Path("schemas") / f"{name}.json": _text(json_schema(name)) for name in MESSAGES}
    texts[Path("schemas") / f"_{DEAD_SUFFIX[1:]}.json"] = _text({"$schema": DIALECT, **DeadLetter.model_json_schema()})
    texts[Path("asyncapi.json")] = _text(asyncapi())
    return texts


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every document; print what changed."""
    for path, text in documents().items():
        target = PACKAGE_ROOT / path
        target.parent.mkdir(exist_ok=True)
        if not target.exists() or target.read_text("utf-8") != text:
            target.write_text(text, "utf-8")
            sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
