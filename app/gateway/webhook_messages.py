"""What callers send about webhook endpoints, and the documents of endpoints and deliveries."""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from app.contracts.documents import rfc3339
from app.domain.webhooks import DeliveryState
from app.gateway.messages import CustomerId
from app.infra.postgres.webhook_deliveries import Delivery
from app.infra.postgres.webhook_endpoints import Endpoint
from app.infra.webhooks.addresses import URL_CHARACTERS_MAX

OVERLAP_S: Final = 24 * 3600
OVERLAP_S_MAX: Final = 7 * 24 * 3600

Url: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=URL_CHARACTERS_MAX,
        description="An https URL of the public internet (in development also others, and http).",
        examples=["https://shop.example.com/holdfast"],
    ),
]
EventTypes: TypeAlias = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=100)]],
    Meta(
        max_length=100,
        description="Only events of these types; none named: of all.",
        examples=[["order.completed.v1"]],
    ),
]
Description: TypeAlias = Annotated[str, Meta(max_length=500, examples=["the shop's back office"])]
State: TypeAlias = Annotated[
    str,
    Meta(
        description="`pending`: it was not tried yet, is on its way, or is to be tried again. `delivered`: "
        "the receiver answered 2xx. `failed`: it is not tried any more, `last_error` says why; it can be "
        "sent again.",
        extra_json_schema={"enum": list(DeliveryState)},
    ),
]
DueAt: TypeAlias = Annotated[
    str | None,
    Meta(
        description="When it is due. Those of an endpoint that wait are sent in this order, the older one of "
        "two first that are due at once. Null once it has ended."
    ),
]
NextAttemptAt: TypeAlias = Annotated[
    str | None,
    Meta(
        description="Before this it is not tried: when it is due, or later, where its endpoint is left "
        "alone. In the past: it waits for a place, or is on its way. Null once it has ended."
    ),
]


class EndpointBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where events are to be sent. With a `customer_id` only those of that customer's orders are."""

    url: Url
    event_types: EventTypes | None = None
    description: Description | None = None
    customer_id: CustomerId | None = None


class EndpointChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; what is not said stays."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Description | None = None
    enabled: bool | None = None


class RotationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the old secret signs beside the new one."""

    overlap_s: Annotated[int, Meta(ge=0, le=OVERLAP_S_MAX, examples=[3600])] = OVERLAP_S


class EndpointDocument(msgspec.Struct, frozen=True):
    """An endpoint. `disabled_reason` is `by_hand`, or `gone` where it answered 410.

    Until `previous_secret_expires_at` the secret from before the rotation signs, too. An endpoint that failed
    again and again is sent nothing before `left_alone_until`, and then one delivery until one succeeds.
    """

    id: str
    url: str
    event_types: list[str]
    description: str
    customer_id: str | None
    enabled: bool
    disabled_reason: str | None
    previous_secret_expires_at: str | None
    left_alone_until: str | None
    created_at: str
    updated_at: str


class SecretDocument(msgspec.Struct, frozen=True):
    """An endpoint with its new secret, which is shown this once."""

    endpoint: EndpointDocument
    secret: str


class DeliveryDocument(msgspec.Struct, frozen=True):
    """One event to one endpoint. `id` is its `webhook-id`, in every attempt.

    `last_status` is what the receiver answered last, if it did.
    """

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    state: State
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: str
    last_attempt_at: str | None
    due_at: DueAt
    next_attempt_at: NextAttemptAt
    delivered_at: str | None


def endpoint_document(endpoint: Endpoint) -> EndpointDocument:
    """An endpoint as its owner sees it."""
    until, alone = endpoint.previous_until, endpoint.left_alone_until
    return EndpointDocument(
        id=endpoint.id,
        url=endpoint.url,
        event_types=list(endpoint.event_types),
        description=endpoint.description,
        customer_id=endpoint.customer_id,
        enabled=endpoint.is_enabled,
        disabled_reason=endpoint.disabled_reason,
        previous_secret_expires_at=None if until is None else rfc3339(until),
        left_alone_until=None if alone is None else rfc3339(alone),
        created_at=rfc3339(endpoint.created_at),
        updated_at=rfc3339(endpoint.updated_at),
    )


def delivery_document(delivery: Delivery) -> DeliveryDocument:
    """A delivery as its endpoint's owner sees it."""
    last, due, soonest = delivery.last_at, delivery.due_at, delivery.next_at
    return DeliveryDocument(
        id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        event_id=f"{delivery.subject}:{delivery.sequence}",
        event_type=delivery.type,
        state=delivery.state,
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        created_at=rfc3339(delivery.created_at),
        last_attempt_at=None if last is None else rfc3339(last),
        due_at=None if due is None else rfc3339(due),
        next_attempt_at=None if soonest is None else rfc3339(soonest),
        delivered_at=None if delivery.delivered_at is None else rfc3339(delivery.delivered_at),
    )
