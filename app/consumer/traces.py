"""The spans of a consumer: after each commit one for every order whose events had their effect, in its trace.

It hangs under what wrote the first of the events (a step of the workflow, or the request), with links to what
wrote the others. A group in which nothing follows from an event has no span of it. If the process dies here,
a span is lost.
"""

import time
from collections.abc import Sequence

from msgspec.structs import replace
from opentelemetry.trace import SpanContext

from app.consumer.dispatch import Afterwards, Group
from app.consumer.projections import Applied
from app.contracts.streams import Envelope
from app.observability import tracing
from app.observability.traces import Traces, context_of

_NS = 1_000_000_000


def traced(groups: Sequence[Group], traces: Traces) -> tuple[Group, ...]:
    """The same groups; each tells `traces` of what it did, last of all."""
    return tuple(replace(each, afterwards=(*each.afterwards, _telling(each, traces))) for each in groups)


def _telling(group: Group, traces: Traces) -> Afterwards:
    """What tells of the effects in one group."""
    name = f"process {group.name}"

    async def tell(applied: Applied) -> None:
        began_ns = time.time_ns() - int((time.monotonic() - applied.as_of) * _NS)
        for events, contexts in _by_subject(group, applied.events):
            first, *others = contexts
            attributes: tracing.Attributes = {
                "holdfast.group": group.name,
                "holdfast.subject": events[0].subject,
                "holdfast.correlation_id": events[0].correlationid,
                "holdfast.event_types": [event.type for event in events],
            }
            traces.note(name, "consumer", first, attributes, began_ns=began_ns, links=others)

    return tell


def _by_subject(group: Group, events: Sequence[Envelope]) -> list[tuple[list[Envelope], list[SpanContext]]]:
    """The events of each subject that are traced and from which something follows; and what wrote them."""
    found: dict[str, tuple[list[Envelope], list[SpanContext]]] = {}
    known: dict[str, SpanContext | None] = {}
    for event in events:
        if event.traceparent is None or not (group.needs_orders or group.handlers.get(event.type)):
            continue
        if event.traceparent not in known:
            known[event.traceparent] = context_of(event.traceparent)
        context = known[event.traceparent]
        if context is not None and context.trace_flags.sampled:
            mine = found.setdefault(event.subject, ([], []))
            mine[0].append(event)
            if context not in mine[1]:
                mine[1].append(context)
    return list(found.values())
