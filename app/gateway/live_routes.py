"""Following events as Server-Sent Events: an order's, and all. Resumed by `Last-Event-ID`, or `after`."""

import re
from functools import partial
from typing import Final

from app.contracts.documents import rfc3339
from app.domain.errors import Unavailable
from app.domain.events import TYPES
from app.domain.ids import ORDER_ID
from app.gateway.auth import authenticate
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.live_listener import HEADERS, MayStay
from app.gateway.live_orders import OrderListener, archived_frame
from app.gateway.live_tail import TailListener
from app.gateway.parameters import query
from app.gateway.problems import ProblemError, not_found, wrong_parameter
from app.gateway.services import Services

OPEN_DEADLINE_S: Final = 2.5
SCOPES_OF_ALL: Final = ("orders:read", "products:read", "inventory:read")
"""What a key needs to follow everything: orders, prices and stock are in it."""
FINAL: Final = frozenset({"completed", "rejected", "cancelled"})

_EVENT_ID: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9]{1,9})\Z")
_SEQUENCE: Final = re.compile(r"[0-9]{1,9}\Z")
_HEADER: Final = b"last-event-id"
_KINDS: Final = frozenset(TYPES.values())
_NAMES: Final = {kind.rpartition(".v")[0] for kind in _KINDS}


def wants_stream(call: Call) -> bool:
    """Whether the caller asks for a stream of events and would not take JSON."""
    accept = (call.header(b"accept") or "*/*").lower()
    return "text/event-stream" in accept and "json" not in accept and "*/*" not in accept


def sequence_of(name: str, text: str, order_id: str) -> int:
    """The sequence that an event id of an order, or a bare sequence, means. Raises ProblemError."""
    if _SEQUENCE.match(text):
        return int(text)
    match = _EVENT_ID.match(text)
    if match is None or match[1] != order_id:
        raise wrong_parameter(name, "It has to be the id of an event of this order, or its sequence.")
    return int(match[2])


async def follow_order(services: Services, call: Call) -> Reply:
    """`GET /v1/orders/{order_id}/events` as a stream: what happened, and what happens, until it is final."""
    order_id = call.order_id = call.parameters["order_id"]
    name, text = _position(call, query(call, "after"))
    services.live.check_room()
    order = None
    if ORDER_ID.match(order_id):
        order = await within(OPEN_DEADLINE_S, services.live.events.order(order_id))
    bound = call.caller.customer_id if call.caller else None
    if order is None or bound not in {None, order.customer_id}:
        raise not_found("such order")
    last = sequence_of(name, text, order_id) if text else 0
    is_final = order.status in FINAL
    if is_final and last >= order.version:
        return Reply(204)  # asks browsers not to come again
    if call.method == "HEAD":
        return Reply(200, headers=HEADERS)
    begin = max(last, order.archived_through)
    listener = OrderListener(_may_stay(services, call), order_id, begin, is_final=is_final)
    if begin > last:
        listener.push(archived_frame(order_id, begin))
    return Reply(200, stream=partial(services.live.serve_order, listener))


async def follow_events(services: Services, call: Call) -> Reply:
    """`GET /v1/events`: everything that happens, as a stream."""
    if "text/event-stream" not in (call.header(b"accept") or "").lower():
        # Whoever takes anything would wait for the end of it.
        raise ProblemError("not-acceptable", "This never ends: ask for text/event-stream.")
    caller = call.caller
    if caller is None or caller.customer_id is not None:
        raise ProblemError("forbidden", "A key that is bound to a customer follows its own orders only.")
    for scope in SCOPES_OF_ALL:
        await authenticate(services.keyring, call, scope)
    given = query(call, "type", "after")
    kinds = _kinds(given.get("type"))
    name, text = _position(call, given)
    services.live.check_room(for_all=True)
    behind = None
    if text:
        match = _EVENT_ID.match(text)
        events = services.live.events
        at = await within(OPEN_DEADLINE_S, events.time_of(match[1], int(match[2]))) if match else None
        if match and at is None:
            until = await within(OPEN_DEADLINE_S, events.archived_until(match[1], int(match[2])))
            if until is not None:
                raise ProblemError("events-archived", f"Events since {rfc3339(until)} can be followed.")
        if at is None:
            raise wrong_parameter(name, "There is no such event. Without it, the stream starts now.")
        behind = (text, at)
    await within(OPEN_DEADLINE_S, services.live.ready())
    if call.method == "HEAD":
        return Reply(200, headers=HEADERS)
    wants = kinds.__contains__ if kinds else _everything
    listener = TailListener(_may_stay(services, call), wants)
    return Reply(200, stream=partial(services.live.serve_all, listener, behind))


def _position(call: Call, given: dict[str, str]) -> tuple[str, str]:
    """Where to go on, and what says so: the header, which a client that comes again sends, or `after`."""
    header = call.header(_HEADER)
    if header:
        return "Last-Event-ID", header.strip()
    return "after", given.get("after", "")


def _kinds(text: str | None) -> frozenset[str]:
    """The types that are wanted, none meaning all: a list with commas, with or without versions."""
    wanted = set[str]()
    for name in (text or "").split(",") if text is not None else ():
        if name in _KINDS:
            wanted.add(name)
        elif name in _NAMES:
            wanted |= {kind for kind in _KINDS if kind.rpartition(".v")[0] == name}
        else:
            raise wrong_parameter(
                "type", "It has to be types of events, like order.completed.v1,price.changed.v1."
            )
    return frozenset(wanted)


def _everything(_: str) -> bool:
    return True


def _may_stay(services: Services, call: Call) -> MayStay:
    """Whether the caller's key still opens this; nobody is sent away while nobody knows."""

    async def may_stay() -> bool:
        try:
            await authenticate(services.keyring, call, "orders:read")
        except ProblemError:
            return False
        except Unavailable:
            return True
        return True

    return may_stay
