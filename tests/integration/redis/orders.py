"""Orders as these tests need them."""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from app.domain.events import Line
from app.domain.order import Order, Status
from app.domain.payment import Payment, PaymentStatus

_AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def order(version: int = 1, *, status: Status = Status.ACCEPTED, later_us: int = 0) -> Order:
    """One order at a version, changed so many microseconds after noon."""
    first = Order(
        id="ord_00000000000000000000000001",
        customer_id="somebody",
        status=status,
        currency="USD",
        lines=(Line("cd-1467", 1, 1467, 1467),),
        total=1467,
        payment=Payment(PaymentStatus.PENDING),
        payment_method="pm_card_visa",
        correlation_id="corr",
        created_at=_AT,
        updated_at=_AT,
        version=version,
    )
    return replace(first, updated_at=_AT + timedelta(microseconds=later_us))
