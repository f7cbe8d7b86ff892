"""Misbehaviour on request: which calls go wrong, how, and how the carrier's clock runs.

Owns the faults that tests and people ask for at `/control` (docs/SANDBOX.md has the table), the carrier's
delays, and the counters. Faults are asked for one after the other; the first that matches a call and fires
decides. All of it is in memory on purpose: a sandbox that is started again behaves well. What a fault let
happen (an authorized payment whose answer was lost) is as durable as everything else.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec

from app.dev.sandbox.http import Cut, Reply, Request, Response

FAULTS_MAX = 100
DELAY_MS_MAX = 30 * 24 * 3600 * 1000
OPERATIONS: dict[str, tuple[str, ...]] = {
    "payments": ("create", "confirm", "capture", "cancel", "retrieve", "list", "refund", "list_refunds"),
    "carrier": ("book", "release", "cancel", "track"),
    "webhooks": ("picked_up", "delivered"),
}
_CALL_MODES = ("refuse", "error_500", "error_429", "late", "lost", "silent")
MODES: dict[str, tuple[str, ...]] = {
    "payments": (*_CALL_MODES, "error_500_stored"),
    "carrier": _CALL_MODES,
    "webhooks": ("mute", "duplicate", "bad_signature"),
}
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=DELAY_MS_MAX)]


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One misbehaviour. Without `calls` and `share`: every matching call until it is taken back."""

    provider: Literal["payments", "carrier", "webhooks"]
    mode: str
    operations: list[str] = []
    calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seed: int = 0
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 1000
    then: Literal["silence", "close"] = "silence"
    after_work: bool = False

    def problem(self) -> str | None:
        """What is wrong with it, if anything is."""
        if self.mode not in MODES[self.provider]:
            return f"mode of {self.provider} must be one of {', '.join(MODES[self.provider])}"
        if not set(self.operations) <= set(OPERATIONS[self.provider]):
            return f"operations of {self.provider} are {', '.join(OPERATIONS[self.provider])}"
        return None


class Delays(msgspec.Struct, forbid_unknown_fields=True):
    """How long the carrier takes from release to pick-up, and from there to delivery."""

    pickup_ms: Milliseconds = 50
    delivery_ms: Milliseconds = 100


class ActiveFault:
    """A fault and how often it has been used."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - repeatable on purpose

    def fires(self, operation: str) -> bool:
        """Whether this call goes wrong; counts it."""
        if self.fault.operations and operation not in self.fault.operations:
            return False
        if self.fault.calls is not None and self.hits >= self.fault.calls:
            return False
        if self.fault.share < 1 and self._random.random() >= self.fault.share:
            return False
        self.hits += 1
        return True


class Control:
    """The faults in force, the delays, and what has been called."""

    def __init__(self, delays: Delays) -> None:
        self._delays_at_start = delays
        self.delays = delays
        self._faults: list[ActiveFault] = []
        self._calls: Counter[str] = Counter()

    def draw(self, provider: str, operation: str) -> Fault | None:
        """Count a call, and say how it is to go wrong, if it is."""
        self._calls[f"{provider}.{operation}"] += 1
        for active in self._faults:
            if active.fault.provider == provider and active.fires(operation):
                return active.fault
        return None

    async def perform(
        self, fault: Fault | None, work: Callable[[], Awaitable[Response]], failing: Callable[[int], Response]
    ) -> Reply:
        """Do a call's work, or what its fault says instead. `failing` makes the provider's error answers."""
        if fault is None:
            return await work()
        cut = Cut.CLOSE if fault.then == "close" else Cut.SILENCE
        match fault.mode:
            case "refuse":
                return Cut.RESET
            case "silent":
                return cut
            case "error_500":
                return failing(500)
            case "error_429":
                return failing(429)
            case "lost":
                await work()
                return cut
            case "late":
                reply = await work()
                await asyncio.sleep(fault.delay_ms / 1000)
                return reply
        return await work()  # error_500_stored: the work itself says so, and stores it

    def handle(self, request: Request, books: dict[str, Any]) -> Response:
        """Answer the control route; `books` is what the providers have to tell of themselves."""
        match (request.method, request.path):
            case ("GET", "/control"):
                return self._state(200, books)
            case ("DELETE", "/control"):
                self.reset(request.query.removeprefix("provider=") or None)
                return self._state(200, books)
            case ("POST", "/control") | ("POST", "/control/delays"):
                return self._order(request, books)
        return _refuse(404, "no such route: GET, POST, DELETE /control and POST /control/delays")

    def _order(self, request: Request, books: dict[str, Any]) -> Response:
        # A page in a browser can send text/plain anywhere without asking; JSON it cannot.
        if not request.headers.get("content-type", "").startswith("application/json"):
            return _refuse(415, "send application/json")
        try:
            if request.path == "/control/delays":
                self.delays = msgspec.json.decode(request.body, type=Delays)
                return self._state(200, books)
            fault = msgspec.json.decode(request.body, type=Fault)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refuse(400, str(error))
        problem = fault.problem()
        if problem is None and len(self._faults) >= FAULTS_MAX:
            problem = "too many faults; DELETE /control first"
        if problem is not None:
            return _refuse(400, problem)
        self._faults.append(ActiveFault(fault))
        return self._state(201, books)

    def reset(self, provider: str | None = None) -> None:
        """Take the faults back, all or one provider's; all of them: the delays too."""
        self._faults = [active for active in self._faults if provider not in (None, active.fault.provider)]
        if provider is None:
            self.delays = self._delays_at_start

    def _state(self, status: int, books: dict[str, Any]) -> Response:
        faults = [{**msgspec.to_builtins(active.fault), "hits": active.hits} for active in self._faults]
        state = {"faults": faults, "delays": self.delays, "calls": dict(self._calls), **books}
        return Response(status, msgspec.json.encode(state))


def _refuse(status: int, message: str) -> Response:
    return Response(status, msgspec.json.encode({"error": {"code": "invalid_control", "message": message}}))
