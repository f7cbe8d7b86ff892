"""`Traces`: spans on OpenTelemetry's SDK, sent as OTLP over HTTP by a thread of its own.

The thread and its queue are the SDK's: `QUEUE_MAX` spans wait at most, the oldest are dropped for new ones,
and whoever ends a span never waits. A request that does not end is given up by its deadline, at the end of
the process by the one that `stop` is given. If the process dies here, what is queued is lost.

Imported only where somebody wants traces.
"""

import contextvars
import logging as standard_logging
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import Attributes as OtelAttributes

from app.observability.logging import logger
from app.observability.tracing import Attribute, Attributes, Kind, Target, Value

QUEUE_MAX: Final = 4_096
"""Spans that wait to be sent: some megabytes at most."""
BATCH_MAX: Final = 128
"""Spans that are sent together. They are encoded under the interpreter's lock, while the loop waits."""
DELAY_MS: Final = 1_000
REQUEST_TIMEOUT_S: Final = 5.0
LINKS_MAX: Final = 128
VALUE_CHARACTERS_MAX: Final = 256
PATH: Final = "/v1/traces"
_SCOPE: Final = "holdfast"
_NOWHERE: Final = Context()
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}

log = logger("tracing")


def context_of(traceparent: str | None) -> SpanContext | None:
    """What a traceparent names; None where it is none."""
    match = _TRACEPARENT.match(traceparent or "")
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return found if found.is_valid else None


def text_of(context: SpanContext) -> str:
    """A span as a traceparent names it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


class OpenSpan:
    """A span under way, which is where its block is. The block's error ends it as failed, by name only."""

    __slots__ = ("_bound", "_failed", "_span", "_token", "trace_id", "traceparent")

    def __init__(self, span: otel.Span) -> None:
        """Begin with a span that has begun."""
        context = span.get_span_context()
        self._span = span
        self._failed = False
        self._token: contextvars.Token[Context] | None = None
        self._bound: Mapping[str, contextvars.Token[Any]] = {}
        self.traceparent = text_of(context)
        self.trace_id = self.traceparent[3:35]

    def __enter__(self) -> Self:
        """Be what is under way here; log lines carry the trace's id."""
        self._token = otel_context.attach(otel.set_span_in_context(self._span, _NOWHERE))
        self._bound = structlog.contextvars.bind_contextvars(trace_id=self.trace_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        if kind is not None and not self._failed:
            self.fail(kind.__name__)
        structlog.contextvars.reset_contextvars(**self._bound)
        if self._token is not None:
            otel_context.detach(self._token)
        self._span.end()

    def set(self, name: Attribute, value: Value) -> None:
        """Say something more about it."""
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Call it what it turned out to be."""
        self._span.update_name(name)

    def fail(self, kind: str) -> None:
        """It did not do what it was to do."""
        self._failed = True
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)


class Traces:
    """Makes spans and has them sent."""

    def __init__(self, target: Target) -> None:
        """Send to `target`."""
        # What the library says of each failed request, we say once: see `_Told`.
        standard_logging.getLogger("opentelemetry").setLevel(standard_logging.CRITICAL)
        self._resource = Resource(
            {
                "service.name": f"holdfast-{target.mode}",
                "service.namespace": "holdfast",
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                "deployment.environment.name": target.environment,
            }
        )
        exporter = OTLPSpanExporter(
            endpoint=target.endpoint + PATH, headers=target.headers, timeout=REQUEST_TIMEOUT_S
        )
        self._queue = _Queue(_Told(exporter, target.endpoint))
        provider = TracerProvider(
            sampler=ParentBased(_Linked(TraceIdRatioBased(target.ratio))),
            resource=self._resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_links=LINKS_MAX, max_attribute_length=VALUE_CHARACTERS_MAX),
        )
        provider.add_span_processor(self._queue)
        self._scope = InstrumentationScope(_SCOPE)
        self._tracer = provider.get_tracer(_SCOPE)

    def stop(self, within_s: float) -> None:
        """Send what is queued, for so many seconds at most. It blocks the thread, so the loop has ended."""
        self._queue.stop(within_s)

    def begun(
        self,
        name: str,
        kind: Kind,
        parent: SpanContext | None,
        attributes: Attributes,
        links: Iterable[Link] = (),
    ) -> OpenSpan:
        """A span that has begun; without a parent it begins a trace."""
        around = _NOWHERE
        if parent is not None:
            around = otel.set_span_in_context(otel.NonRecordingSpan(parent), _NOWHERE)
        return OpenSpan(
            self._tracer.start_span(
                name,
                around,
                _KINDS[kind],
                cast("Mapping[str, Any]", attributes),
                tuple(links),
                record_exception=False,
                set_status_on_exception=False,
            )
        )

    def under(self, parent: str, name: str, kind: Kind, attributes: Attributes) -> OpenSpan | None:
        """A span under a traceparent; None where that is not sampled."""
        context = context_of(parent)
        if context is None or not context.trace_flags & TraceFlags.SAMPLED:
            return None
        return self.begun(name, kind, context, attributes)

    def within(self, name: str, kind: Kind, attributes: Attributes) -> OpenSpan | None:
        """A span within the one under way here; None where there is none."""
        span = otel.get_current_span()
        return self.begun(name, kind, span.get_span_context(), attributes) if span.is_recording() else None

    def of_many(self, name: str, kind: Kind, traceparents: Sequence[str | None]) -> OpenSpan | None:
        """A trace of its own, linked to all that it works for; None where none of them is sampled."""
        contexts = map(context_of, dict.fromkeys(traceparents))
        known = [c for c in contexts if c and c.trace_flags & TraceFlags.SAMPLED]
        if not known:
            return None
        attributes: Attributes = {"holdfast.batch_size": len(traceparents)}
        return self.begun(name, kind, None, attributes, map(Link, known[:LINKS_MAX]))

    def here(self) -> str | None:
        """The traceparent of the span under way here, where it is kept."""
        span = otel.get_current_span()
        return text_of(span.get_span_context()) if span.is_recording() else None

    def continued(self, stored: str) -> str:
        """See `tracing.continued`."""
        span = otel.get_current_span()
        if not span.is_recording():
            return stored
        own = text_of(span.get_span_context())
        if own[3:35] == stored[3:35]:
            return own
        order = context_of(stored)
        if order is not None:
            span.add_link(order)
        return stored

    def note(
        self,
        name: str,
        kind: Kind,
        parent: SpanContext,
        attributes: Attributes,
        *,
        began_ns: int,
        span_id: int | None = None,
        links: Sequence[SpanContext] = (),
        failed: str | None = None,
    ) -> None:
        """A span of something that is over, from `began_ns` (Unix nanoseconds) until now.

        Nothing where its parent is not sampled. `span_id`: under an id that others know already.
        """
        if not parent.trace_flags & TraceFlags.SAMPLED:
            return
        given: dict[Attribute, Value] = {**attributes}
        if failed is not None:
            given["error.type"] = failed
        span_id = span_id or int.from_bytes(os.urandom(8), "big") | 1
        context = SpanContext(parent.trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)
        self._queue.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                cast("Mapping[str, Any]", given),
                links=tuple(map(Link, links[:LINKS_MAX])),
                kind=_KINDS[kind],
                status=Status(StatusCode.UNSET if failed is None else StatusCode.ERROR),
                start_time=began_ns,
                end_time=max(began_ns, time.time_ns()),
                instrumentation_scope=self._scope,
            )
        )


class _Linked(Sampler):
    """Keeps what works for somebody whose trace is kept; of all other traces that begin here, a share."""

    def __init__(self, share: Sampler) -> None:
        self._share = share

    def should_sample(  # noqa: PLR0917 - the SDK's
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: OtelAttributes = None,
        links: Sequence[Link] | None = None,
        trace_state: otel.TraceState | None = None,
    ) -> SamplingResult:
        if links and any(link.context.trace_flags & TraceFlags.SAMPLED for link in links):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._share.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Linked{{{self._share.get_description()}}}"


class _Queue(BatchSpanProcessor):
    """The SDK's queue and its thread, with an end that takes as long as it is given."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(
            exporter,
            max_queue_size=QUEUE_MAX,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=BATCH_MAX,
            export_timeout_millis=REQUEST_TIMEOUT_S * 1000,
        )

    def stop(self, within_s: float) -> None:
        """Send what is queued; after so many seconds the thread is left alone, and dies with the process."""
        self._batch_processor.shutdown(timeout_millis=int(within_s * 1000))


class _Told(SpanExporter):
    """Sends; says once that spans do not arrive, and once that they do again, with how many were lost."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = 0
        self._context = contextvars.copy_context()  # the thread's own has no mode to name in its lines

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                self._context.run(log.warning, "traces_are_lost", endpoint=self._endpoint)
            self._lost += len(spans)
        elif self._lost:
            self._context.run(log.info, "traces_arrive_again", lost=self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
