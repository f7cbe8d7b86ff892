"""The outermost layer of HTTP: ids, correlation, load, metrics and one log line for every request.

Every response leaves with `X-Request-ID` and `X-Correlation-ID`. More than `IN_FLIGHT_MAX` requests at once
are refused within milliseconds, except probes. Log lines and labels carry the route's template, never the
path, so no personal data gets into them.
"""

import time
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from app.domain.ids import ORDER_ID
from app.gateway import problems
from app.gateway.exchange import Application, Call, Message, Receive, Scope, Send, send_reply
from app.gateway.problem_kinds import BY_SLUG
from app.observability import metrics
from app.observability.logging import logger

IN_FLIGHT_MAX: Final = 1_024
PROBES: Final = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
STATE: Final = "call"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logger("access")


class Edge:
    """Wraps the application; itself an ASGI application."""

    def __init__(self, app: Application, *, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        """Serve `app`, at most `in_flight_max` requests at once."""
        self._app = app
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[tuple[str, str], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        method = scope["method"]
        call = Call(method, scope["path"], scope["query_string"], scope["headers"], receive)
        scope.setdefault("state", {})[STATE] = call
        if method == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        answer = _Answer(send, call)
        tokens = structlog.contextvars.bind_contextvars(
            correlation_id=call.correlation_id, request_id=call.request_id
        )
        self._in_flight += 1
        try:
            if self._in_flight > self._in_flight_max and call.path not in PROBES:
                await self._refuse(answer, call)
            else:
                await self._app(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            if not answer.status:
                await send_reply(answer, problems.answer(call, error))
        finally:
            self._in_flight -= 1
            self._account(method, call, answer.status, time.perf_counter() - started)
            structlog.contextvars.reset_contextvars(**tokens)

    async def _refuse(self, answer: "_Answer", call: Call) -> None:
        kind = BY_SLUG["overloaded"]
        detail = f"{self._in_flight_max} requests are under way."
        await send_reply(answer, problems.reply(call, kind, detail, headers=((b"retry-after", b"1"),)))

    def _account(self, method: str, call: Call, status: int, seconds: float) -> None:
        """Count, time and log a request."""
        shown = method if method in _METHODS else "other"
        counter = self._counters.get((shown, call.route, status))
        if counter is None:
            counter = metrics.HTTP_REQUESTS.labels(shown, call.route, str(status))
            self._counters[shown, call.route, status] = counter
        counter.inc()
        timer = self._timers.get((shown, call.route))
        if timer is None:
            timer = self._timers[shown, call.route] = metrics.HTTP_DURATION.labels(shown, call.route)
        timer.observe(seconds)
        say = log.debug if call.path in PROBES else log.info
        order_id = call.order_id or ""
        say(
            "request",
            method=shown,
            route=call.route,
            status=status,
            ms=round(seconds * 1000, 2),
            key=call.caller.id if call.caller else None,
            order_id=order_id if ORDER_ID.match(order_id) else None,  # else it is whatever somebody typed
            correlation_id=call.correlation_id,  # a webhook learns it only when its order is found
        )


class _Answer:
    """Sends, and adds to every response the ids that let somebody find it again."""

    __slots__ = ("_call", "_send", "status")

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ids = (
                (b"x-request-id", self._call.request_id.encode()),
                (b"x-correlation-id", self._call.correlation_id.encode()),
            )
            message["headers"] = [*message["headers"], *ids]
        await self._send(message)
