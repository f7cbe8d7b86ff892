"""`InMemoryPayments`: the port `Payments` with a dictionary for a provider.

For tests and experiments in one process. It keeps the promises the port is about (one answer per key, no
hold without confirm, no capture above the hold, no refund above the capture) and can be told to fail before
or after the work. Everything is forgotten when the process dies.
"""

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from app.domain.errors import Declined, Refusal, Refused
from app.domain.ports import Intent, IntentStatus


class Created(NamedTuple):
    """What `create` was told, beside the amount."""

    order_id: str
    currency: str
    correlation_id: str


class _Fault(NamedTuple):
    operation: str
    error: Exception
    after_work: bool


class InMemoryPayments:
    """Fulfils the port `Payments`."""

    def __init__(
        self, declines: dict[str, Declined] | None = None, unknown: frozenset[str] = frozenset()
    ) -> None:
        """Decline these payment methods when they are confirmed; refuse the `unknown` ones at once."""
        self.intents: dict[str, Intent] = {}
        self.created: dict[str, Created] = {}
        self.calls: Counter[str] = Counter()
        self._declines = declines or {}
        self._unknown = unknown
        self._methods: dict[str, str] = {}
        self._answers: dict[str, tuple[tuple[object, ...], Intent | Declined]] = {}
        self._faults: list[_Fault] = []
        self._numbers = count(1)

    def fail(self, operation: str, error: Exception, *, after_work: bool = False) -> None:
        """Raise `error` from the next call of `operation` that has not been told to fail yet."""
        self._faults.append(_Fault(operation, error, after_work))

    async def create(
        self, *, order_id: str, amount: int, currency: str, payment_method: str, correlation_id: str, key: str
    ) -> Intent:
        """Note an intent."""

        def work() -> Intent:
            if payment_method in self._unknown:
                raise Declined("resource_missing", None, "There is no such payment method.")
            intent = Intent(f"pi_{next(self._numbers)}", IntentStatus.UNCONFIRMED, amount)
            self.created[intent.id] = Created(order_id, currency, correlation_id)
            self._methods[intent.id] = payment_method
            return intent

        return self._once("create", key, (order_id, amount, currency, payment_method), work)

    async def confirm(self, intent: str, *, key: str) -> Intent:
        """Hold the amount, or decline."""

        def work() -> Intent:
            known = self._known(intent)
            if known.status is not IntentStatus.UNCONFIRMED:
                return known
            declined = self._declines.get(self._methods[intent])
            if declined is None:
                return replace(known, status=IntentStatus.AUTHORIZED)
            self.intents[intent] = replace(
                known,
                status=IntentStatus.DECLINED,
                code=declined.code,
                decline_code=declined.decline_code,
                message=declined.message,
            )
            raise declined

        return self._once("confirm", key, (intent,), work)

    async def capture(self, intent: str, *, amount: int, key: str) -> Intent:
        """Take what is held."""

        def work() -> Intent:
            known = self._known(intent)
            if known.status is not IntentStatus.AUTHORIZED:
                return known
            if not 0 < amount <= known.amount:
                raise Refused(Refusal("amount-too-large", "More than is held."))
            return replace(known, status=IntentStatus.CAPTURED, captured=amount)

        return self._once("capture", key, (intent, amount), work)

    async def void(self, intent: str, *, key: str) -> Intent:
        """Let the hold go."""

        def work() -> Intent:
            known = self._known(intent)
            if known.status in {IntentStatus.CAPTURED, IntentStatus.VOIDED}:
                return known
            return replace(known, status=IntentStatus.VOIDED)

        return self._once("void", key, (intent,), work)

    async def refund(self, intent: str, *, amount: int, key: str) -> Intent:
        """Give back."""

        def work() -> Intent:
            known = self._known(intent)
            left = known.captured - known.refunded
            if left == 0:
                return known
            if not 0 < amount <= left:
                raise Refused(Refusal("refund-too-large", "More than was captured."))
            return replace(known, refunded=known.refunded + amount)

        return self._once("refund", key, (intent, amount), work)

    async def retrieve(self, intent: str) -> Intent:
        """The intent as it is."""
        self._count("retrieve", after_work=False)
        return self._known(intent)

    def _known(self, intent: str) -> Intent:
        if intent not in self.intents:
            raise Refused(Refusal("resource-missing", "There is no such payment."))
        return self.intents[intent]

    def _once(
        self, operation: str, key: str, parameters: tuple[object, ...], work: Callable[[], Intent]
    ) -> Intent:
        """Do the work the first time, give its answer every time."""
        self._count(operation, after_work=False)
        if key not in self._answers:
            self._answers[key] = ((operation, *parameters), self._done(work))
        first, answer = self._answers[key]
        if first != (operation, *parameters):
            raise Refused(Refusal("idempotency", "The key was used for something else."))
        self._count(operation, after_work=True)
        if isinstance(answer, Declined):
            raise answer
        return answer

    def _done(self, work: Callable[[], Intent]) -> Intent | Declined:
        """What comes of the work; other exceptions are not answers, and no key keeps them."""
        try:
            intent = work()
        except Declined as declined:
            return declined
        self.intents[intent.id] = intent
        return intent

    def _count(self, operation: str, *, after_work: bool) -> None:
        """Count a call, and fail it where a test said so."""
        if not after_work:
            self.calls[operation] += 1
        for fault in self._faults:
            if fault.operation == operation and fault.after_work == after_work:
                self._faults.remove(fault)
                raise fault.error
