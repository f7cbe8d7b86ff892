"""The two routes that carry nearly all traffic, found and answered without a router.

`POST /v1/orders` and `GET /v1/orders/{order_id}` run the same functions as behind the router; what is saved
is finding them. A read by a caller who is at hand, of a document that is near or in Redis, is answered with
nothing else around it (`read`): no log line, no context. Whatever is out of the ordinary takes the longer
way, which says why.
"""

from time import perf_counter
from typing import Final

from app.domain.ids import ORDER_ID
from app.gateway.answering import answer
from app.gateway.cached_orders import Record
from app.gateway.exchange import Call, Reply, Scope, Send, correlation_of, new_id
from app.gateway.problems import ProblemError
from app.gateway.route import Route
from app.gateway.routes import ROUTES
from app.gateway.services import Services
from app.infra.postgres.api_keys import ApiKey
from app.observability import metrics
from app.observability.access_log import AccessLog

PLACE_PATH: Final = "/v1/orders"
READ_PATH: Final = "/v1/orders/{order_id}"
SLOW_S: Final = 0.1
"""A read of an order that took longer is written down, however well it went."""
_PREFIX: Final = "/v1/orders/"
_ID_LENGTH: Final = 30
_SCOPE: Final = "orders:read"
_READ_LENGTH: Final = len(_PREFIX) + _ID_LENGTH


class HotRoutes:
    """Answers calls of the hot routes."""

    def __init__(self, services: Services, access_log: AccessLog) -> None:
        """Work with the same services as every other route; slow reads go to `access_log`."""
        self._access_log = access_log
        by_name: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in ROUTES}
        self._place = by_name["POST", PLACE_PATH]
        self._read = by_name["GET", READ_PATH]
        self._services = services
        self._at_hand = services.keyring.at_hand
        self._cached = services.cached
        self._admissions = services.admissions
        self._try_read = services.admissions.try_read
        self._timer = metrics.HTTP.timer("GET", READ_PATH)

    async def read(self, scope: Scope, send: Send) -> bool:
        """Answer a read of an order by a caller who is at hand.

        False, and nothing is sent, for whatever takes the longer way: another route, a caller to be looked
        up, a condition, a limit that was reached, no such order.
        """
        path: str = scope["path"]
        if scope["method"] != "GET" or len(path) != _READ_LENGTH or not path.startswith(_PREFIX):
            return False
        started = perf_counter()
        headers = scope["headers"]
        given = dict(headers)
        if len(given) != len(headers) or b"if-none-match" in given or b"traceparent" in given:
            return False
        caller = self._at_hand(given.get(b"authorization"))
        if caller is None or _SCOPE not in caller.scopes:
            return False
        order_id = path[len(_PREFIX) :]
        try:  # before anything is read: who is over the limit costs nobody anything
            limits = self._try_read(caller) or await self._admissions.read(caller)
        except ProblemError:
            return False
        record = self._cached.near(order_id) or await self._fetched(order_id)
        if record is None or (caller.customer_id is not None and caller.customer_id != record.customer_id):
            self._admissions.read_not(caller)  # the longer way asks
            return False
        identity = new_id().encode()
        correlation = identity
        if b"x-correlation-id" in given:
            taken = correlation_of(given[b"x-correlation-id"])
            correlation = taken.encode() if taken else identity
        ids = ((b"x-request-id", b"req_" + identity), (b"x-correlation-id", correlation))
        head = [*record.full_headers, *limits, *ids]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": record.body})
        seconds = perf_counter() - started
        self._timer.count(200, seconds)
        if seconds >= SLOW_S:
            self._write_down(caller, order_id, seconds, identity, correlation)
        return True

    def _write_down(
        self, caller: ApiKey, order_id: str, seconds: float, request: bytes, correlation: bytes
    ) -> None:
        line = {"method": "GET", "route": READ_PATH, "status": 200, "ms": round(seconds * 1000, 2)}
        ids = {"correlation_id": correlation.decode(), "request_id": f"req_{request.decode()}"}
        self._access_log.line({**line, "key": caller.id, "order_id": order_id, **ids})

    async def _fetched(self, order_id: str) -> Record | None:
        """The document of an order that is not near; None where there is something to say instead."""
        if not ORDER_ID.match(order_id):
            return None
        try:
            return await self._cached.fetch(order_id)
        except Exception:  # noqa: BLE001 - the longer way meets it again, and answers it
            return None

    async def reply(self, call: Call) -> Reply | None:
        """The answer to a call of a hot route; None where it is a call of another."""
        if call.method == "POST":
            if call.path != PLACE_PATH:
                return None
            route = self._place
        elif call.method == "GET" and len(call.path) == _READ_LENGTH and call.path.startswith(_PREFIX):
            route = self._read
            call.parameters = {"order_id": call.path[len(_PREFIX) :]}
        else:
            return None
        call.route = route.path
        return await answer(route, self._services, call)
