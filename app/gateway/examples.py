"""Examples for the OpenAPI document, made by the code that makes the real thing, so that they cannot lag."""

from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from app.contracts import streams
from app.contracts.documents import EventPage, OrderDocument, Page, document, rfc3339
from app.domain import events
from app.domain.catalogue import Product, SkuStock, WarehouseStock
from app.domain.chain import chain
from app.domain.commands import PlaceOrder, WantedLine
from app.domain.errors import Refusal
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import order_id
from app.domain.money import Money
from app.domain.order import Order, evolve
from app.domain.place import place
from app.domain.webhooks import secret_of
from app.gateway import messages
from app.gateway.analytics import MinuteDocument, minute_document
from app.gateway.customers import CustomerDocument, customer_document
from app.gateway.health import Health
from app.gateway.letter_messages import DecidedDocument, LettersBody
from app.gateway.live_listener import frame
from app.gateway.replay_routes import REPLAY_EXAMPLES
from app.gateway.webhook_messages import (
    DeliveryDocument,
    EndpointBody,
    EndpointChangeBody,
    EndpointDocument,
    RotationBody,
    SecretDocument,
)
from app.infra.postgres.analytics import Minute
from app.infra.postgres.customers import CustomerRow
from app.infra.postgres.dead_letters import DeadLetterDocument

_AT: Final = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
_STEP: Final = timedelta(milliseconds=120)
_PRODUCT: Final = Product("tea-earl-grey", "Earl Grey, 100 g", Money(1467, "USD"), 40)
_CORRELATION: Final = "checkout-7f3a"
_COMMAND: Final = PlaceOrder("cust-1042", "USD", (WantedLine(_PRODUCT.sku, 2),), "pm_card_visa", 2934)


def _accepted() -> tuple[Order, streams.Envelope]:
    identity = order_id(int(_AT.timestamp() * 1000), bytes(range(10)))
    placed = place(_COMMAND, identity, {_PRODUCT.sku: _PRODUCT}, _CORRELATION, _AT)
    assert not isinstance(placed, Refusal)
    order, event = placed
    linked = chain(None, order.id, 0, (event,), _AT, _CORRELATION, None)[0]
    envelope = streams.Envelope(
        id=f"{order.id}:1",
        type=linked.type,
        source=streams.source("dev"),
        subject=order.id,
        time=rfc3339(_AT),
        sequence=1,
        correlationid=_CORRELATION,
        data=msgspec.Raw(linked.data.encode()),
    )
    return replace(order, metadata={"cart": "c-77"}), envelope


def _confirmed(order: Order) -> Order:
    """The order after its stock was reserved, its payment authorized and its one parcel booked."""
    lines = tuple(FulfilmentLine(line.sku, line.quantity) for line in order.lines)
    parcel = FulfilmentPlan(f"ful_{order.id.removeprefix('ord_')}_1", "east", lines)
    steps: tuple[events.OrderEvent, ...] = (
        events.InventoryReserved((parcel,)),
        events.PaymentAuthorized("pi_3SxQ7b", Money(order.total, order.currency)),
        events.ShipmentBooked(parcel.id, "shp_81fe", "TRK1"),
        events.OrderConfirmed(),
    )
    for number, step in enumerate(steps, 1):
        order = evolve(order, step, _AT + number * _STEP)
    return order


_ORDER, _EVENT = _accepted()
_CONFIRMED: Final = _confirmed(_ORDER)
ORDER_ID: Final = _ORDER.id
ACCEPTED: Final = document(_ORDER)
CONFIRMED: Final = document(_CONFIRMED)
CANCELLING: Final = document(evolve(_CONFIRMED, events.OrderCancelling(), _AT + 10 * _STEP))
_PRODUCT_DOCUMENT: Final = messages.product_document(_PRODUCT)
_STOCK: Final = messages.stock_document(
    SkuStock(_PRODUCT.sku, (WarehouseStock("east", 25, 2), WarehouseStock("west", 17, 0)))
)

_MINUTE: Final = minute_document(
    Minute(
        _AT.replace(second=0, microsecond=0),
        {
            "orders": {"accepted": 12, "confirmed": 11, "rejected": 1},
            "revenue": {"USD": 32274},
            "rejections": {"out_of_stock": 1},
            "price_changes": {"": 2},
        },
    )
)
_SPENDING: Final = CustomerRow(
    currency="USD",
    accepted=3,
    completed=2,
    rejected=1,
    items=6,
    captured=5868,
    first_order_at=_AT - 30 * timedelta(days=1),
    last_order_at=_AT,
)
_LETTER: Final = DeadLetterDocument(
    id="17",
    group="projections",
    subject=ORDER_ID,
    sequence=5,
    type="order.confirmed.v1",
    kind="failed",
    state="open",
    error="KeyError('currency')",
    stack="Traceback (most recent call last): …",
    attempts=6,
    first_at=rfc3339(_AT),
    last_at=rfc3339(_AT + _STEP),
)

_ENDPOINT: Final = EndpointDocument(
    id="whe_06dzpv7x2m8wq3k9n5t1r4c7j0",
    url="https://shop.example.com/holdfast",
    event_types=["order.confirmed.v1", "order.completed.v1"],
    description="the shop's back office",
    customer_id=None,
    enabled=True,
    disabled_reason=None,
    previous_secret_expires_at=None,
    left_alone_until=None,
    created_at=rfc3339(_AT),
    updated_at=rfc3339(_AT),
)
_DELIVERY: Final = DeliveryDocument(
    id="msg_9f86d081884c7d659a2feaa0c55ad015",
    endpoint_id=_ENDPOINT.id,
    event_id=f"{ORDER_ID}:5",
    event_type="order.confirmed.v1",
    state="pending",
    attempts=2,
    last_status=503,
    last_error="the receiver answered 503",
    created_at=rfc3339(_AT),
    last_attempt_at=rfc3339(_AT + 50 * _STEP),
    due_at=rfc3339(_AT + 2550 * _STEP),
    next_attempt_at=rfc3339(_AT + 2550 * _STEP),
    delivered_at=None,
)

WEBHOOK_ENDPOINT_ID: Final = _ENDPOINT.id
STREAM: Final = frame(_EVENT.id, _EVENT.type, msgspec.json.encode(_EVENT)).decode()
"""One event as a stream sends it."""

EXAMPLES: Final = MappingProxyType(
    {
        messages.OrderBody: messages.OrderBody(
            customer_id="cust-1042",
            currency="USD",
            lines=[messages.LineBody("tea-earl-grey", 2)],
            payment_method="pm_card_visa",
            shipping_address=messages.AddressBody(
                "Ada L.", "12 St James's Sq", "London", "SW1Y 4LB", "GB", email="ada@example.com"
            ),
            expected_total=messages.MoneyBody(2934, "USD"),
            metadata={"cart": "c-77"},
        ),
        messages.CancelBody: messages.CancelBody("ordered twice"),
        messages.ProductBody: messages.ProductBody("Earl Grey, 100 g", messages.MoneyBody(1467, "USD")),
        messages.AdjustmentBody: messages.AdjustmentBody("east", 25, "delivery 8841"),
        messages.CarrierEventBody: messages.CarrierEventBody(
            "shipment.delivered", f"ful_{ORDER_ID.removeprefix('ord_')}_1", "TRK1", rfc3339(_AT)
        ),
        messages.CarrierAnswer: messages.CarrierAnswer("recorded", "The delivery is on record."),
        messages.ProductDocument: _PRODUCT_DOCUMENT,
        messages.StockDocument: _STOCK,
        OrderDocument: CONFIRMED,
        Page[OrderDocument]: Page([CONFIRMED], None),
        EventPage: EventPage([_EVENT], None),
        Page[messages.ProductDocument]: Page([_PRODUCT_DOCUMENT], None),
        Page[messages.StockDocument]: Page([_STOCK], None),
        Page[MinuteDocument]: Page([_MINUTE], None),
        CustomerDocument: customer_document("cust-1042", [_SPENDING]),
        DeadLetterDocument: _LETTER,
        Page[DeadLetterDocument]: Page([_LETTER], None),
        LettersBody: LettersBody(group="projections", type="order.confirmed.v1", first_after=_AT),
        DecidedDocument: DecidedDocument(1, ["17"], None),
        EndpointBody: EndpointBody(_ENDPOINT.url, _ENDPOINT.event_types, _ENDPOINT.description),
        EndpointChangeBody: EndpointChangeBody(event_types=["order.completed.v1"], enabled=True),
        RotationBody: RotationBody(3600),
        EndpointDocument: _ENDPOINT,
        Page[EndpointDocument]: Page([_ENDPOINT], None),
        SecretDocument: SecretDocument(_ENDPOINT, secret_of(bytes(range(32)))),
        DeliveryDocument: _DELIVERY,
        Page[DeliveryDocument]: Page([_DELIVERY], None),
        **REPLAY_EXAMPLES,
        Health: Health("ok", {"postgres": "ok"}),
    }
)
"""One example of every body and document."""


def example_of(kind: Any) -> Any:  # noqa: ANN401 - plain JSON
    """The example of a type, as plain JSON without the fields that are not said."""
    shown = plain(EXAMPLES[kind])
    if kind.__name__.endswith("Body"):
        return _said(shown)
    return shown


def plain(value: Any) -> Any:  # noqa: ANN401
    """A document as plain JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _said(value: Any) -> Any:  # noqa: ANN401
    """Without nulls: a caller leaves out what it does not say."""
    if isinstance(value, dict):
        return {name: _said(item) for name, item in value.items() if item is not None}
    return [_said(item) for item in value] if isinstance(value, list) else value
