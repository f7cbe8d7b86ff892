"""`Traces`: makes spans, and has OpenTelemetry's SDK send them as OTLP over HTTP by a thread of its own.

A span is made here, of plain values, and becomes the SDK's when it is over: a fifth of the cost of the SDK's
own way. The thread and its queue are the SDK's: `QUEUE_MAX` spans wait at most, the oldest are dropped for
new ones, and whoever ends a span never waits. A request that does not end is given up by its deadline, at the
end of the process by the one that `stop` is given. If the process dies here, what is queued is lost.

Imported only where somebody wants traces.
"""

import contextvars
import logging as standard_logging
import os
import random
import re
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app.observability.logging import logger
from app.observability.otlp import Encoder, Exporter
from app.observability.tracing import Attribute, Attributes, Kind, Target, Value

QUEUE_MAX: Final = 4_096
"""Spans that wait to be sent: some megabytes at most."""
BATCH_MAX: Final = 256
"""Spans that are sent together. They are encoded under the interpreter's lock, while the loop waits."""
DELAY_MS: Final = 1_000
REQUEST_TIMEOUT_S: Final = 5.0
LINKS_MAX: Final = 128
PATH: Final = "/v1/traces"
_SCOPE: Final = InstrumentationScope("holdfast")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_DROPPED: Final = TraceFlags(TraceFlags.DEFAULT)
_WELL: Final = Status(StatusCode.UNSET)
_FAILED: Final = Status(StatusCode.ERROR)
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_ODD: Final = frozenset("13579bdf")
"""The last digit of a traceparent whose trace is kept: its lowest bit says so."""
_RATIO_OF: Final = 2**64
"""A trace that begins here is kept where half of its id is below the share of this, as in the SDK."""
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

    __slots__ = (
        "_attributes",
        "_began_ns",
        "_bound",
        "_failed",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "_token",
        "_traces",
        "context",
        "trace_id",
        "traceparent",
    )

    def __init__(
        self,
        traces: "Traces",
        name: str,
        kind: Kind,
        context: SpanContext,
        parent: SpanContext | None,
        *,
        attributes: Attributes,
        links: Sequence[SpanContext],
    ) -> None:
        """Begin; it is told to `traces` when it is over, if `context` is sampled."""
        self._traces = traces
        self._name = name
        self._kind: Kind = kind
        self._parent = parent
        self._attributes: dict[Attribute, Value] = {**attributes}
        self._links = links
        self._failed: str | None = None
        self._token: contextvars.Token[OpenSpan | None] | None = None
        self._bound: Mapping[str, contextvars.Token[Any]] = {}
        self._began_ns = time.time_ns()
        self.context = context
        self.traceparent = text_of(context)
        self.trace_id = self.traceparent[3:35]

    def __enter__(self) -> Self:
        """Be what is under way here; log lines carry the trace's id."""
        self._token = _here.set(self)
        self._bound = structlog.contextvars.bind_contextvars(trace_id=self.trace_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        if kind is not None and self._failed is None:
            self._failed = kind.__name__
        structlog.contextvars.reset_contextvars(**self._bound)
        if self._token is not None:
            _here.reset(self._token)
        self._traces.told(
            self._name,
            self._kind,
            self.context,
            self._parent,
            self._attributes,
            began_ns=self._began_ns,
            links=self._links,
            failed=self._failed,
        )

    @property
    def is_kept(self) -> bool:
        """Whether it will be sent."""
        return self.context.trace_flags.sampled

    def set(self, name: Attribute, value: Value) -> None:
        """Say something more about it."""
        self._attributes[name] = value

    def rename(self, name: str) -> None:
        """Call it what it turned out to be."""
        self._name = name

    def link(self, to: SpanContext) -> None:
        """It has to do with that one, too."""
        self._links = (*self._links, to)

    def fail(self, kind: str) -> None:
        """It did not do what it was to do."""
        self._failed = kind


_here: Final[contextvars.ContextVar[OpenSpan | None]] = contextvars.ContextVar("_here", default=None)


class Traces:
    """Makes spans and has them sent."""

    def __init__(self, target: Target) -> None:
        """Send to `target`."""
        # What the library says of each failed request, we say once: see `_Told`.
        for library in ("opentelemetry", "urllib3"):
            standard_logging.getLogger(library).setLevel(standard_logging.CRITICAL)
        process: dict[str, Value] = {
            "service.name": f"holdfast-{target.mode}",
            "service.namespace": "holdfast",
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            "deployment.environment.name": target.environment,
        }
        self._resource = Resource(process)
        exporter = Exporter(
            target.endpoint + PATH,
            target.headers,
            Encoder(process, _SCOPE.name),
            timeout_s=REQUEST_TIMEOUT_S,
        )
        self._queue = _Queue(_Told(exporter, target.endpoint))
        self._kept_below = round(target.ratio * _RATIO_OF)

    def stop(self, within_s: float) -> None:
        """Send what is queued, for so many seconds at most. It blocks the thread, so the loop has ended."""
        self._queue.stop(within_s)

    def begun(
        self,
        name: str,
        kind: Kind,
        parent: SpanContext | None,
        attributes: Attributes,
        links: Sequence[SpanContext] = (),
    ) -> OpenSpan:
        """A span that has begun. Without a parent it begins a trace: a share is kept, and what has links."""
        if parent is None:
            trace_id = random.getrandbits(128) | 1
            is_kept = any(link.trace_flags.sampled for link in links)
            is_kept = is_kept or trace_id % _RATIO_OF < self._kept_below
        else:
            trace_id, is_kept = parent.trace_id, parent.trace_flags.sampled
        context = SpanContext(
            trace_id, _new_id(), is_remote=False, trace_flags=_SAMPLED if is_kept else _DROPPED
        )
        return OpenSpan(self, name, kind, context, parent, attributes=attributes, links=links)

    def under(self, parent: str, name: str, kind: Kind, attributes: Attributes) -> OpenSpan | None:
        """A span under a traceparent; None where that is not sampled."""
        context = context_of(parent)
        if context is None or not context.trace_flags.sampled:
            return None
        return self.begun(name, kind, context, attributes)

    def within(self, name: str, kind: Kind, attributes: Attributes) -> OpenSpan | None:
        """A span within the one under way here; None where there is none."""
        span = _here.get()
        return self.begun(name, kind, span.context, attributes) if span and span.is_kept else None

    def of_many(self, name: str, kind: Kind, traceparents: Sequence[str | None]) -> OpenSpan | None:
        """A trace of its own, linked to all that it works for; None where none of them is sampled."""
        kept = [given for given in dict.fromkeys(traceparents) if given and given[-1] in _ODD]
        contexts = map(context_of, kept)
        known = [context for context in contexts if context and context.trace_flags.sampled]
        if not known:
            return None
        return self.begun(name, kind, None, {"holdfast.batch_size": len(traceparents)}, known)

    def here(self) -> str | None:
        """The traceparent of the span under way here, where it is kept."""
        span = _here.get()
        return span.traceparent if span and span.is_kept else None

    def continued(self, stored: str) -> str:
        """See `tracing.continued`."""
        span = _here.get()
        if span is None or not span.is_kept:
            return stored
        if span.trace_id == stored[3:35]:
            return span.traceparent
        order = context_of(stored)
        if order is not None:
            span.link(order)
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
        context = SpanContext(
            parent.trace_id, span_id or _new_id(), is_remote=False, trace_flags=parent.trace_flags
        )
        self.told(name, kind, context, parent, attributes, began_ns=began_ns, links=links, failed=failed)

    def told(
        self,
        name: str,
        kind: Kind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        *,
        began_ns: int,
        links: Sequence[SpanContext],
        failed: str | None,
    ) -> None:
        """Have a span sent that is over now; nothing where it is not sampled."""
        if not context.trace_flags.sampled:
            return
        said = attributes if failed is None else {**attributes, "error.type": failed}
        self._queue.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                cast("Mapping[str, Any]", said),
                links=tuple(map(Link, links[:LINKS_MAX])),
                kind=_KINDS[kind],
                status=_WELL if failed is None else _FAILED,
                start_time=began_ns,
                end_time=max(began_ns, time.time_ns()),
                instrumentation_scope=_SCOPE,
            )
        )


def _new_id() -> int:
    """The id of a span."""
    return random.getrandbits(64) | 1


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
