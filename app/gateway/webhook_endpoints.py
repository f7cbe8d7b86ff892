"""Webhook endpoints over HTTP: where events are sent, by which secret, and what became of each delivery.

Endpoints belong to a customer, or to the shop, never to the key that made them. A key that is bound to a
customer makes and sees endpoints of that customer only, which are sent that one's orders' events. Whoever has
events sent, or is shown the secret that signs them, may read them: the key needs these scopes, too. To look,
to switch off and to delete it needs none of them.
"""

import re
import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from app.contracts import streams
from app.contracts.documents import Page
from app.domain.errors import Fault, Refusal, Refused
from app.domain.events import TYPES
from app.domain.ids import WEBHOOK_ENDPOINT_ID, webhook_endpoint_id
from app.domain.place import INVALID
from app.domain.webhooks import SECRET_BYTES, DeliveryState, secret_of
from app.gateway.auth import authenticate
from app.gateway.bodies import check_is_json, decode, read_body
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.idempotency import key_of, reply_of, request_of
from app.gateway.live_routes import SCOPES_OF_ALL
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query
from app.gateway.problems import ProblemError, not_found, wrong_parameter
from app.gateway.services import Services
from app.gateway.webhook_messages import (
    EndpointBody,
    EndpointChangeBody,
    RotationBody,
    SecretDocument,
    delivery_document,
    endpoint_document,
)
from app.infra.postgres.api_keys import ApiKey
from app.infra.postgres.webhook_deliveries import Delivery
from app.infra.postgres.webhook_endpoints import Endpoint, Wanted
from app.infra.webhooks.addresses import ForbiddenError, target_of

DEADLINE_S: Final = 2.5
SCOPES_OF_ORDERS: Final = ("orders:read",)
_NUMBER_DIGITS_MAX: Final = 18
_LAST: Final = 2**63 - 1
_DELIVERY_ID: Final = re.compile(r"msg_[0-9a-f]{32}\Z")

_kinds: Final = frozenset(TYPES.values())
_encoder: Final = msgspec.json.Encoder()
_endpoint: Final = msgspec.json.Decoder(EndpointBody)
_change: Final = msgspec.json.Decoder(EndpointChangeBody)
_rotation: Final = msgspec.json.Decoder(RotationBody)


async def create_webhook_endpoint(services: Services, call: Call) -> Reply:
    """`POST /v1/webhook-endpoints`: a new endpoint, with its secret."""
    caller, key = _caller(call), key_of(call)
    check_is_json(call)
    body = await read_body(call)
    given = decode(_endpoint, body)
    customer_id = given.customer_id or caller.customer_id
    if caller.customer_id not in {None, customer_id}:
        raise ProblemError("forbidden", "This API key is bound to another customer.")
    await _check_may_read(services, call, customer_id)
    _check(services, given.url, given.event_types)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    work = services.webhook_endpoints.add(
        request_of(caller, "POST /v1/webhook-endpoints", key, body),
        webhook_endpoint_id(now_ms, secrets.token_bytes(10)),
        Wanted(given.url, given.description, _each_once(given.event_types)),
        customer_id=customer_id,
        secret=secret_of(secrets.token_bytes(SECRET_BYTES)),
        encode=_with_secret,
    )
    return reply_of(await within(DEADLINE_S, work))


async def list_webhook_endpoints(services: Services, call: Call) -> Reply:
    """`GET /v1/webhook-endpoints`: endpoints, the oldest first."""
    given = query(call, "cursor", "limit")
    limit = limit_of(given)
    after = cursor_of(given, "webhook-endpoints", WEBHOOK_ENDPOINT_ID.match) or ""
    work = services.webhook_endpoints.page(after, _caller(call).customer_id, limit + 1)
    found = await within(DEADLINE_S, work)
    more = encode_cursor("webhook-endpoints", found[limit - 1].id) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([endpoint_document(one) for one in found[:limit]], more)))


async def get_webhook_endpoint(services: Services, call: Call) -> Reply:
    """`GET /v1/webhook-endpoints/{endpoint_id}`: one endpoint."""
    return Reply(200, _encoder.encode(endpoint_document(await _one(services, call))))


async def change_webhook_endpoint(services: Services, call: Call) -> Reply:
    """`PATCH /v1/webhook-endpoints/{endpoint_id}`: other events, another URL, on or off."""
    check_is_json(call)
    given = decode(_change, await read_body(call))
    before = await _one(services, call)
    if given.event_types is not None or given.url is not None or given.enabled:
        await _check_may_read(services, call, before.customer_id)
    _check(services, given.url, given.event_types)
    types = None if given.event_types is None else _each_once(given.event_types)
    wanted = Wanted(given.url, given.description, types, given.enabled)
    work = services.webhook_endpoints.change(before.id, before.customer_id, wanted)
    after = await within(DEADLINE_S, work)
    if after is None:
        raise not_found("such webhook endpoint")
    return Reply(200, _encoder.encode(endpoint_document(after)))


async def delete_webhook_endpoint(services: Services, call: Call) -> Reply:
    """`DELETE /v1/webhook-endpoints/{endpoint_id}`: nothing is sent to it any more."""
    identity, customer_id = _identity(call), _caller(call).customer_id
    if not await within(DEADLINE_S, services.webhook_endpoints.delete(identity, customer_id)):
        raise not_found("such webhook endpoint")
    return Reply(204)


async def rotate_webhook_secret(services: Services, call: Call) -> Reply:
    """`POST /v1/webhook-endpoints/{endpoint_id}/rotate-secret`: a new secret, the old one for a while yet."""
    caller, key, identity = _caller(call), key_of(call), _identity(call)
    body = await read_body(call)
    wanted = RotationBody()
    if body:
        check_is_json(call)
        wanted = decode(_rotation, body)
    endpoint = await within(DEADLINE_S, services.webhook_endpoints.one(identity, caller.customer_id))
    if endpoint is not None:  # else there may still be an answer to this key
        await _check_may_read(services, call, endpoint.customer_id)
    work = services.webhook_endpoints.rotate(
        request_of(caller, f"POST /v1/webhook-endpoints/{identity}/rotate-secret", key, body),
        identity,
        caller.customer_id,
        secret=secret_of(secrets.token_bytes(SECRET_BYTES)),
        overlap_s=wanted.overlap_s,
        encode=_with_secret,
    )
    try:
        return reply_of(await within(DEADLINE_S, work))
    except LookupError:
        raise not_found("such webhook endpoint") from None


async def list_webhook_deliveries(services: Services, call: Call) -> Reply:
    """`GET /v1/webhook-endpoints/{endpoint_id}/deliveries`: the log, newest first."""
    given = query(call, "state", "cursor", "limit")
    limit, state = limit_of(given), given.get("state")
    if state is not None and state not in set(DeliveryState):
        raise wrong_parameter("state", "It has to be one of " + ", ".join(DeliveryState) + ".")
    before = int(cursor_of(given, "webhook-deliveries", _is_number) or _LAST)
    endpoint = await _one(services, call)
    work = services.webhook_deliveries.page(endpoint.id, before, limit + 1, state=state)
    found = await within(DEADLINE_S, work)
    more = encode_cursor("webhook-deliveries", str(found[limit - 1].number)) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([delivery_document(one) for one in found[:limit]], more)))


async def send_test_webhook(services: Services, call: Call) -> Reply:
    """`POST /v1/webhook-endpoints/{endpoint_id}/test`: send a greeting, to see whether it arrives."""
    caller, key = _caller(call), key_of(call)
    endpoint = await _one(services, call)
    request = request_of(caller, f"POST /v1/webhook-endpoints/{endpoint.id}/test", key, b"")
    delivery_id = f"msg_{secrets.token_hex(16)}"
    work = services.webhook_deliveries.test(request, endpoint.id, delivery_id, _delivery)
    try:
        answer = await within(DEADLINE_S, work)
    except LookupError:
        raise not_found("such webhook endpoint") from None
    services.hints.publish(streams.hint_workflow_outbox(services.environment))
    return reply_of(answer)


async def redeliver_webhook(services: Services, call: Call) -> Reply:
    """`POST …/deliveries/{delivery_id}/redeliver`: send it once more, whatever became of it."""
    caller, key = _caller(call), key_of(call)
    endpoint = await _one(services, call)
    await _check_may_read(services, call, endpoint.customer_id)
    delivery_id = call.parameters["delivery_id"]
    if not _DELIVERY_ID.match(delivery_id):
        raise not_found("such delivery")
    route = f"POST /v1/webhook-endpoints/{endpoint.id}/deliveries/{delivery_id}/redeliver"
    request = request_of(caller, route, key, b"")
    work = services.webhook_deliveries.again(request, endpoint.id, delivery_id, _delivery)
    try:
        answer = await within(DEADLINE_S, work)
    except LookupError:
        raise not_found("such delivery") from None
    services.hints.publish(streams.hint_workflow_outbox(services.environment))
    return reply_of(answer)


async def _one(services: Services, call: Call) -> Endpoint:
    """The endpoint in the path. Raises ProblemError where the caller sees none."""
    customer_id = _caller(call).customer_id
    found = await within(DEADLINE_S, services.webhook_endpoints.one(_identity(call), customer_id))
    if found is None:
        raise not_found("such webhook endpoint")
    return found


async def _check_may_read(services: Services, call: Call, customer_id: str | None) -> None:
    """Raises ProblemError where the caller may not read what an endpoint of this customer is sent."""
    for scope in SCOPES_OF_ALL if customer_id is None else SCOPES_OF_ORDERS:
        await authenticate(services.keyring, call, scope)


def _identity(call: Call) -> str:
    identity = call.parameters["endpoint_id"]
    if not WEBHOOK_ENDPOINT_ID.match(identity):
        raise not_found("such webhook endpoint")
    return identity


def _check(services: Services, url: str | None, types: list[str] | None) -> None:
    """Raises Refused naming each field that cannot be."""
    faults = []
    if url is not None:
        try:
            target_of(url, private_allowed=services.environment == "dev")
        except ForbiddenError as error:
            faults.append(Fault("/url", str(error)))
    for number, kind in enumerate(types or ()):
        if kind not in _kinds:
            faults.append(Fault(f"/event_types/{number}", "There is no such type of event."))
    if faults:
        raise Refused(Refusal(INVALID, f"{faults[0].pointer}: {faults[0].detail}", tuple(faults)))


def _each_once(types: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(types or ()))


def _with_secret(endpoint: Endpoint, secret: str) -> bytes:
    return _encoder.encode(SecretDocument(endpoint_document(endpoint), secret))


def _delivery(delivery: Delivery) -> bytes:
    return _encoder.encode(delivery_document(delivery))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX


def _caller(call: Call) -> ApiKey:
    assert call.caller is not None, "the route names a scope"
    return call.caller
