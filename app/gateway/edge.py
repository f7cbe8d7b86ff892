"""The outermost layer of HTTP: ids, correlation, load, metrics and one log line for every request.

Every response leaves with `X-Request-ID` and `X-Correlation-ID`. What there is no room for is refused within
milliseconds (`shedding.py`), and has no log line. Log lines and labels carry the route's template, never the
path, so no personal data gets into them. Reads of an order that went well have no line (but at level debug).
"""

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from app.domain.ids import ORDER_ID
from app.gateway import problems
from app.gateway.exchange import Application, Call, Headers, Message, Receive, Scope, Send, Stream, send_reply
from app.gateway.hot import READ_PATH, SLOW_S, HotRoutes
from app.gateway.shedding import METHODS, PROBES, REQUESTS_MAX, Shedding
from app.observability import metrics
from app.observability.access_log import AccessLog

if TYPE_CHECKING:
    from app.gateway.traces import RequestTraces

STATE: Final = "call"
CLOSE: Final[Headers] = ((b"connection", b"close"),)
_STREAMS: Final = 200


class Edge:
    """Wraps the application; itself an ASGI application."""

    def __init__(
        self,
        app: Application,
        access_log: AccessLog,
        hot: HotRoutes | None = None,
        *,
        requests_max: int = REQUESTS_MAX,
        traces: "RequestTraces | None" = None,
    ) -> None:
        """Serve `hot` itself and the rest by `app`, at most `requests_max` requests at once."""
        self._app = app
        self._hot = hot
        self._shedding = Shedding(requests_max)
        self._crowded_from = self._shedding.crowded_from
        self._in_flight = 0
        self._is_leaving = False
        self.asked_late = 0
        """Requests that came after it was told to leave; probes are none."""
        self.closing: Headers = ()
        """What every answer says about its connection."""
        metrics.HTTP_IN_FLIGHT.set_function(lambda: self._in_flight)
        self._access_log = access_log
        self._traces = traces

    def leave(self) -> None:
        """Have every answer from now on close its connection: no other request comes after it."""
        self._is_leaving = True
        self.closing = CLOSE

    def flush(self) -> None:
        """Write what the access log has gathered."""
        self._access_log.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        is_quick = self._hot is not None and not self._is_leaving and not self._access_log.is_verbose
        if is_quick and self._hot is not None and await self._hot.read(scope, send):
            return
        method = scope["method"]
        if self._is_leaving:
            self.asked_late += scope["path"] not in PROBES
        if self._in_flight >= self._crowded_from:
            refusal = self._shedding.refusal(scope, self._in_flight, self.closing)
            if refusal is not None:  # nothing of it is read or written down: refusing has to be cheap
                await send_reply(send, refusal)
                return
        started = perf_counter()
        call = Call(method, scope["path"], scope["query_string"], scope["headers"], receive)
        span = None if self._traces is None else self._traces.begun(call)
        tokens = structlog.contextvars.bind_contextvars(
            correlation_id=call.correlation_id, request_id=call.request_id
        )
        answer = _Answer(send, call, self)
        self._in_flight += 1
        try:
            await self._answer(scope, call, answer)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            if not answer.status:
                await send_reply(answer, problems.answer(call, error))
        finally:
            self._in_flight -= 1
            status = answer.status if call.stream is None else _STREAMS
            self._account(method, call, status, perf_counter() - started)
            structlog.contextvars.reset_contextvars(**tokens)
            if span is not None and self._traces is not None:
                self._traces.ended(span, call, status)
        if call.stream is not None:
            await self._go_on(call, call.stream, answer, scope["client"])

    async def _go_on(self, call: Call, stream: Stream, answer: "_Answer", client: tuple[str, Any]) -> None:
        """Send a stream. The request is answered and counted: a stream is not under way, it only lasts."""
        try:
            await stream(call.receive, answer, (client[0], int(client[1])))
        except Exception as error:  # noqa: BLE001 - as above
            reply = problems.answer(call, error)
            if not answer.status:
                await send_reply(answer, reply)

    async def _answer(self, scope: Scope, call: Call, answer: "_Answer") -> None:
        if self._hot is not None:
            reply = await self._hot.reply(call)
            if reply is not None:
                await send_reply(answer, reply)
                return
        if call.method == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        scope.setdefault("state", {})[STATE] = call
        await self._app(scope, call.receive, answer)

    def _account(self, method: str, call: Call, status: int, seconds: float) -> None:
        """Count, time and log a request."""
        shown = method if method in METHODS else "other"
        metrics.HTTP.timer(shown, call.route).count(status, seconds)
        order_id = call.order_id or ""
        line = {
            "method": shown,
            "route": call.route,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "key": call.caller.id if call.caller else None,
            "order_id": order_id if ORDER_ID.match(order_id) else None,  # else it is whatever somebody typed
            "correlation_id": call.correlation_id,  # a webhook learns it only when its order is found
            "request_id": call.request_id,
        }
        if self._traces is not None and call.traceparent is not None:
            line["trace_id"] = call.traceparent[3:35]
        self._access_log.line(line, debug=call.path in PROBES or _is_quiet(call, status, seconds))


def _is_quiet(call: Call, status: int, seconds: float) -> bool:
    """Whether this is one of the many reads that went well: they are counted, not written down."""
    return call.route == READ_PATH and status in {200, 304} and seconds < SLOW_S and call.method == "GET"


class _Answer:
    """Sends, and adds to every response the ids that let somebody find it again."""

    __slots__ = ("_call", "_edge", "_send", "status")

    def __init__(self, send: Send, call: Call, edge: Edge) -> None:
        self._send = send
        self._edge = edge
        self._call = call
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ids = (
                (b"x-request-id", self._call.request_id.encode()),
                (b"x-correlation-id", self._call.correlation_id.encode()),
            )
            message["headers"] = [*message["headers"], *self._call.limits, *ids, *self._edge.closing]
        await self._send(message)
