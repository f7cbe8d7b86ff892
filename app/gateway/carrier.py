"""The carrier's webhooks (Standard Webhooks): checked, then put on record as deliveries.

The carrier repeats a report until it is answered 2xx. So 2xx is the answer to everything that repeating could
never change, too (`ignored`, and a line in the log), and anything else asks for a repetition. Recording a
delivery twice is nothing new, so reports may come any number of times.
"""

import base64
import binascii
import hashlib
import hmac
import time
from typing import Final

import msgspec

from app.domain.errors import Refusal, Refused
from app.domain.ids import order_of_fulfilment
from app.domain.order import Status
from app.gateway.bodies import check_is_json, decode, read_body
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.messages import CarrierAnswer, CarrierEventBody
from app.gateway.problems import ProblemError
from app.gateway.services import Services
from app.observability.logging import logger

TOLERANCE_S: Final = 300
DEADLINE_S: Final = 2.5
SIGNATURES_MAX: Final = 16
_DIGITS_MAX: Final = 12
_WAYS_THERE: Final = frozenset({Status.ACCEPTED, Status.CONFIRMED})
"""An order in one of these may still be dispatched, and then be delivered."""

_decoder: Final = msgspec.json.Decoder(CarrierEventBody)
_encoder: Final = msgspec.json.Encoder()

log = logger("carrier")


async def receive_event(services: Services, call: Call) -> Reply:
    """`POST /v1/carrier-events`: the carrier says what became of a parcel."""
    body = await read_body(call)
    check_signature(call, body, services.webhook_secret, time.time())
    check_is_json(call)
    event = decode(_decoder, body)
    order_id = call.order_id = order_of_fulfilment(event.reference)
    if event.type != "shipment.delivered":
        return _ignored(event, "Only deliveries change anything here.", loud=False)
    if order_id is None:
        return _ignored(event, "The reference is not one of ours.")
    return await within(DEADLINE_S, _deliver(services, call, order_id, event))


async def _deliver(services: Services, call: Call, order_id: str, event: CarrierEventBody) -> Reply:
    as_of = time.monotonic()
    try:
        outcome = await services.intake.deliver(order_id, event.reference)
        if isinstance(outcome, Refusal):
            order = await services.orders.load(order_id)
            if order.status in _WAYS_THERE and order.fulfilment(event.reference):
                detail = "We have not put its release on record yet."
                raise ProblemError("not-now", detail, headers=((b"retry-after", b"1"),))
            return _ignored(event, outcome.detail)
    except LookupError:
        return _ignored(event, "There is no such order.")
    except Refused as refused:
        return _ignored(event, refused.refusal.detail)
    call.correlation_id = outcome.correlation_id
    services.hint_orders()
    services.cached.show_soon(outcome, as_of=as_of)
    return Reply(200, _encoder.encode(CarrierAnswer("recorded", "The delivery is on record.")))


def _ignored(event: CarrierEventBody, why: str, *, loud: bool = True) -> Reply:
    if loud:
        log.warning("carrier_report_ignored", type=event.type, reference=event.reference, why=why)
    return Reply(200, _encoder.encode(CarrierAnswer("ignored", why)))


def check_signature(call: Call, body: bytes, secret: bytes, now: float) -> None:
    """Raises ProblemError unless the request was signed with `secret` within five minutes of `now`."""
    identity = call.headers.get(b"webhook-id", b"")
    timestamp = call.headers.get(b"webhook-timestamp", b"")
    signatures = call.headers.get(b"webhook-signature", b"")
    if not identity or not signatures or not timestamp.isdigit() or len(timestamp) > _DIGITS_MAX:
        raise ProblemError("unauthenticated", "webhook-id, -timestamp and -signature are needed.")
    if abs(now - int(timestamp)) > TOLERANCE_S:
        raise ProblemError(
            "unauthenticated", f"webhook-timestamp is more than {TOLERANCE_S} s away from now."
        )
    expected = hmac.digest(secret, b"%b.%b.%b" % (identity, timestamp, body), hashlib.sha256)
    if not any(hmac.compare_digest(expected, given) for given in _given(signatures)):
        raise ProblemError("unauthenticated", "No signature in webhook-signature is right.")


def _given(signatures: bytes) -> list[bytes]:
    """The decoded `v1` signatures of a header that may list several."""
    found = []
    for one in signatures.split()[:SIGNATURES_MAX]:
        version, _, encoded = one.partition(b",")
        if version == b"v1":
            try:
                found.append(base64.b64decode(encoded, validate=True))
            except binascii.Error:
                continue
    return found
