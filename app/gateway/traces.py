"""The spans of requests: every change has one, a read where its caller has one, a probe none.

The request's span is the beginning of an order's trace: its `traceparent`, not the caller's, is stored with
what the request changes. Where the caller names no correlation, the trace's id is it.
"""

from typing import Final

from app.domain.ids import ORDER_ID
from app.gateway.exchange import Call
from app.gateway.shedding import METHODS
from app.observability.traces import OpenSpan, Traces, context_of

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FAILED: Final = 500


class RequestTraces:
    """Makes the spans of requests."""

    def __init__(self, traces: Traces) -> None:
        """Make them in `traces`."""
        self._traces = traces

    def begun(self, call: Call) -> OpenSpan | None:
        """The span of a request that has come, under way until `ended`; None where it has none."""
        parent = context_of(call.traceparent)
        if parent is None and call.method in _READS:
            return None
        span = self._traces.begun(call.method, "server", parent, {"holdfast.request_id": call.request_id})
        call.traceparent = span.traceparent
        if call.correlation_id == call.request_id[4:]:
            call.correlation_id = span.trace_id
        return span.__enter__()

    def ended(self, span: OpenSpan, call: Call, status: int) -> None:
        """Say what came of a request, and end its span."""
        if span.is_kept:
            _describe(span, call, status)
        span.__exit__(None, None, None)


def _describe(span: OpenSpan, call: Call, status: int) -> None:
    method = call.method if call.method in METHODS else "other"
    span.rename(f"{method} {call.route}")
    span.set("http.request.method", method)
    span.set("http.route", call.route)
    span.set("http.response.status_code", status)
    span.set("holdfast.correlation_id", call.correlation_id)
    if call.order_id is not None and ORDER_ID.match(call.order_id):  # else it is whatever somebody typed
        span.set("holdfast.order_id", call.order_id)
    if status >= _FAILED:
        span.fail(str(status))
