"""The two routes that carry nearly all traffic, found and answered without a router.

`POST /v1/orders` and `GET /v1/orders/{order_id}` run the same functions as behind the router; what is saved
is finding them. A read whose document, caller and budget are all at hand is answered at once (`near`): no
round trip, no task, no log line. Whatever is out of the ordinary takes the longer way, which says why.
"""

from collections.abc import Sequence
from typing import Final

from app.gateway.answering import answer
from app.gateway.exchange import Call, Message, Reply, correlation_of, new_id
from app.gateway.problems import ProblemError
from app.gateway.routes import ROUTES, Route
from app.gateway.services import Services
from app.observability import metrics

PLACE_PATH: Final = "/v1/orders"
READ_PATH: Final = "/v1/orders/{order_id}"
_PREFIX: Final = "/v1/orders/"
_ID_LENGTH: Final = 30
_SCOPE: Final = "orders:read"
_READ_LENGTH: Final = len(_PREFIX) + _ID_LENGTH


class HotRoutes:
    """Answers calls of the hot routes."""

    def __init__(self, services: Services) -> None:
        """Work with the same services as every other route."""
        by_name: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in ROUTES}
        self._place = by_name["POST", PLACE_PATH]
        self._read = by_name["GET", READ_PATH]
        self._services = services
        self._at_hand = services.keyring.at_hand
        self._near = services.cached.near
        self._try_read = services.admissions.try_read
        self.read_timer = metrics.HTTP.timer("GET", READ_PATH)

    def at_once(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Message, Message] | None:
        """The answer to a read that needs nobody else; None for whatever takes the longer way."""
        if method != "GET" or len(path) != _READ_LENGTH or not path.startswith(_PREFIX):
            return None
        given = dict(headers)
        if len(given) != len(headers) or b"if-none-match" in given or b"traceparent" in given:
            return None
        caller = self._at_hand(given.get(b"authorization"))
        if caller is None or _SCOPE not in caller.scopes:
            return None
        record = self._near(path[len(_PREFIX) :])
        if record is None or (caller.customer_id is not None and caller.customer_id != record.customer_id):
            return None
        try:
            limits = self._try_read(caller)
        except ProblemError:  # the longer way says so
            return None
        if limits is None:
            return None
        identity = new_id().encode()
        correlation = identity
        if b"x-correlation-id" in given:
            taken = correlation_of(given[b"x-correlation-id"])
            correlation = taken.encode() if taken else identity
        ids = ((b"x-request-id", b"req_" + identity), (b"x-correlation-id", correlation))
        return (
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*record.full_headers, *limits, *ids],
            },
            {"type": "http.response.body", "body": record.body},
        )

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
