"""The two routes that carry nearly all traffic, found and answered without a router.

`POST /v1/orders` and `GET /v1/orders/{order_id}` run the same functions as behind the router; what is saved
is finding them. A read whose document, caller and budget are all at hand is answered at once (`near`): no
round trip, no task, no log line. Whatever is out of the ordinary takes the longer way, which says why.
"""

from typing import Final

from app.gateway.answering import answer
from app.gateway.exchange import Call, Reply
from app.gateway.routes import ROUTES, Route
from app.gateway.services import Services
from app.observability import metrics

PLACE_PATH: Final = "/v1/orders"
READ_PATH: Final = "/v1/orders/{order_id}"
_PREFIX: Final = "/v1/orders/"
_ID_LENGTH: Final = 30
_READ_LENGTH: Final = len(_PREFIX) + _ID_LENGTH


class HotRoutes:
    """Answers calls of the hot routes."""

    def __init__(self, services: Services) -> None:
        """Work with the same services as every other route."""
        by_name: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in ROUTES}
        self._place = by_name["POST", PLACE_PATH]
        self._read = by_name["GET", READ_PATH]
        self._services = services
        self._timer = metrics.HTTP.timer("GET", READ_PATH)

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
