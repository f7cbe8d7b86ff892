"""`Shedding`: who is refused when more is asked than can be done, before anything of a request is read.

What is under way is limited. The fuller it is, the fewer kinds of requests get in: lists and everything else
are refused first, then new orders, and last of all the status of an order and its cancellation; probes never.
A refusal says when to come again, costs a small part of an order, and leaves no line in the log: how many
there were is counted, and told once a second. Nothing is kept here that matters if the process dies.
"""

import asyncio
from itertools import cycle
from typing import Final

from app.gateway import problems
from app.gateway.exchange import Call, Headers, Message, Reply, Scope
from app.gateway.hot import PLACE_PATH, READ_PATH
from app.gateway.problem_kinds import BY_SLUG
from app.observability import metrics
from app.observability.logging import logger

REQUESTS_MAX: Final = 1_024
"""Requests under way in one process; only the status of an order and its cancellation get so far."""
ORDERS_SHARE: Final = 0.75
"""Of these, how many there may be when a new order comes. Up to 256 only wait, as `Prefer` asked."""
OTHERS_SHARE: Final = 0.5
"""And how many when anything else comes."""
PROBES: Final = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
TOLD_S: Final = 1.0

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_READS: Final = ("GET", "HEAD")
_ONE_ORDER: Final = "/v1/orders/"
_CANCEL_PATH: Final = "/v1/orders/{order_id}/cancel"
_CANCEL: Final = "/cancel"
_RETRY_AFTER: Final[tuple[Headers, ...]] = tuple(((b"retry-after", b"%d" % s),) for s in (1, 2, 3))
"""In turns: who was refused together does not come again together."""

log = logger("gateway")


class Shedding:
    """The limits of one gateway."""

    def __init__(self, requests_max: int = REQUESTS_MAX) -> None:
        """Let at most `requests_max` requests be under way at once."""
        self._max = requests_max
        self._orders_max = max(int(requests_max * ORDERS_SHARE), 1)
        self.crowded_from: Final = max(int(requests_max * OTHERS_SHARE), 1)
        """With fewer under way nobody is refused."""
        self._kind = BY_SLUG["overloaded"]
        self._retry_after = cycle(_RETRY_AFTER)
        self._refused = 0
        self._telling: asyncio.TimerHandle | None = None

    def refusal(self, scope: Scope, in_flight: int, more: Headers = ()) -> Reply | None:
        """The answer to a request that has no room beside so many, with `more` headers; None where it has."""
        method, path = scope["method"], scope["path"]
        route, room = self._class_of(method, path)
        if in_flight < room or path in PROBES:
            return None
        call = Call(method, path, b"", scope["headers"], _unread)
        ids = (
            (b"x-request-id", call.request_id.encode()),
            (b"x-correlation-id", call.correlation_id.encode()),
        )
        metrics.HTTP.timer(method if method in METHODS else "other", route).count(self._kind.status, 0.0)
        self._count()
        detail = f"{in_flight} requests are under way."
        return problems.reply(call, self._kind, detail, headers=(*next(self._retry_after), *ids, *more))

    def _class_of(self, method: str, path: str) -> tuple[str, int]:
        """The route of a request, and how many may be under way when it comes."""
        if path == PLACE_PATH and method == "POST":
            return path, self._orders_max
        if path.startswith(_ONE_ORDER):
            wanted = path[len(_ONE_ORDER) :]
            if method in _READS and "/" not in wanted:
                return READ_PATH, self._max
            if method == "POST" and wanted.endswith(_CANCEL):
                return _CANCEL_PATH, self._max
        return "unmatched", self.crowded_from

    def _count(self) -> None:
        self._refused += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOLD_S, self._tell)

    def _tell(self) -> None:
        log.warning("overloaded", refused=self._refused)
        self._refused, self._telling = 0, None


async def _unread() -> Message:
    raise AssertionError("what is refused here is not read")
