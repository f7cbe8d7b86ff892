"""What every step has in common: the correlation of its log lines, its answer, and its refusals."""

from temporalio.exceptions import ApplicationError

from app.contracts.temporal import Progress, Step
from app.domain.errors import Refusal
from app.domain.events import Reason
from app.domain.fulfilment import FulfilmentStatus
from app.domain.order import Order, Status
from app.observability.logging import bind_correlation


def begin(step: Step) -> str:
    """Let the step's log lines carry its order and correlation; the order's id."""
    bind_correlation(step.correlation_id, order_id=step.order_id)
    return step.order_id


def progress(order: Order, reason: Reason | None = None) -> Progress:
    """What the workflow needs to know of an order after a step."""
    undelivered = tuple(f.id for f in order.fulfilments if f.status is not FulfilmentStatus.DELIVERED)
    return Progress(order.status, order.version, order.total, undelivered, reason)


def final(refusal: Refusal) -> ApplicationError:
    """A refusal that no retry can mend: the operator has to look. As text it is `<code>: <detail>`."""
    return ApplicationError(refusal.detail, type=refusal.code, non_retryable=True)


def may_be_undone(order: Order) -> None:
    """Undoing must never begin once the order is past the point of no return."""
    if order.status not in {Status.ACCEPTED, Status.CANCELLING}:
        raise final(Refusal("not-now", f"Nothing is undone of an order that is {order.status}."))


def granted(answer: Order | Refusal) -> Order:
    """The order, where a refusal would be a defect or somebody else's doing."""
    if isinstance(answer, Refusal):
        raise final(answer)
    return answer
