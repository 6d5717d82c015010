"""Logs, metrics and traces, and how a trace crosses Kafka."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import Counter, Gauge, Histogram

tracer = trace.get_tracer("quill")

CONSUMED = Counter("quill_consumed_records", "Records read, by what became of them", ["topic", "outcome"])
PUBLISHED = Counter("quill_published_messages", "Messages confirmed by Kafka")
OUTBOX_ROWS = Gauge("quill_outbox_rows_in_batch", "Rows the relay found waiting when it last looked")
CONSUMER_LAG = Gauge("quill_consumer_lag_records", "Records behind the end of the partition", ["topic", "partition"])
BATCH_SECONDS = Histogram("quill_batch_seconds", "From records in hand to offsets settled", ["topic"])
HTTP_SECONDS = Histogram("quill_http_seconds", "HTTP requests", ["method", "route", "status"])
FAILED_OPERATIONS = Gauge("quill_operations_failed", "Operations given up, which wait for a person", ["kind"])
JOB_RUNS = Counter("quill_job_runs", "Runs of a periodic job", ["job", "outcome"])

_HIDDEN = ("secret", "token", "password", "authorization", "sealed", "api_key", "license_key")


def configure(*, service: str, level: str, otlp_endpoint: str | None = None) -> None:
    """Set up JSON logs on stderr and the tracer; once per process, from an entry point.

    Spans are sent to ``otlp_endpoint`` (OTLP over HTTP) when there is one; trace ids are in the logs either way.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            _hide_secrets,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if otlp_endpoint is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
    trace.set_tracer_provider(provider)


def current_trace_headers() -> dict[str, str]:
    """Headers that carry the running trace to whoever reads the message."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def trace_context(headers: Mapping[str, str]) -> Context:
    """The trace a message came with; an empty one when it came with none."""
    return propagate.extract(dict(headers))


def _add_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
    return event


def _hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if any(word in name.lower() for word in _HIDDEN):
            event[name] = "[hidden]"
    return event
