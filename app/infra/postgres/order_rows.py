"""An order and its row: the one place that knows how the aggregate lies in the table."""

from typing import Any, Final

import asyncpg
import msgspec

from app.domain.adjustment import PriceAdjustment
from app.domain.events import Line, Reason
from app.domain.fulfilment import Fulfilment
from app.domain.order import Order, Status, StockStatus
from app.domain.payment import Payment

_lines: Final = msgspec.json.Decoder(tuple[Line, ...])
_payment: Final = msgspec.json.Decoder(Payment)
_fulfilments: Final = msgspec.json.Decoder(tuple[Fulfilment, ...])
_reason: Final = msgspec.json.Decoder(Reason)
_metadata: Final = msgspec.json.Decoder(dict[str, str])
_adjustments: Final = msgspec.json.Decoder(tuple[PriceAdjustment, ...])
_encoder: Final = msgspec.json.Encoder()
_NONE: Final = "[]"  # nearly every order


def order_from(row: asyncpg.Record) -> Order:
    """The order that a row holds."""
    return Order(
        id=row["id"],
        customer_id=row["customer_id"],
        status=Status(row["status"]),
        currency=row["currency"],
        lines=_lines.decode(row["lines"]),
        total=row["total"],
        payment=_payment.decode(row["payment"]),
        payment_method=row["payment_method"],
        correlation_id=row["correlation_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        stock=StockStatus(row["stock"]),
        fulfilments=_fulfilments.decode(row["fulfilments"]),
        reason=None if row["reason"] is None else _reason.decode(row["reason"]),
        waiting_on=row["waiting_on"],
        metadata=_metadata.decode(row["metadata"]),
        version=row["version"],
        adjustments=_adjustments_from(row["price_adjustments"]),
    )


def _adjustments_from(text: str) -> tuple[PriceAdjustment, ...]:
    return () if text == _NONE else _adjustments.decode(text)


def json_text(value: Any) -> str:  # noqa: ANN401 - anything msgspec encodes
    """A value as the text of a json column."""
    return _encoder.encode(value).decode()
