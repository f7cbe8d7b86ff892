"""`StripePayments`: the port `Payments` on Stripe, or on anything that speaks Stripe's API (the sandbox).

Owns the translation: our calls into the official library's, its answers and errors into our domain's words.
Nothing is retried here and nothing decided: an unknown outcome is `Unavailable`, and asking again with the
same key, or for the intent, is safe. If the process dies during a call, that is such an unknown outcome.

| what Stripe says | what it is here |
| --- | --- |
| no complete answer, 409 (key in use), 429, 5xx, anything that cannot be read | `Unavailable` |
| 5xx with `Idempotent-Replayed` | `KeyWornOut`: this key will never answer anything else |
| 402, or a payment method that does not exist | `Declined` |
| 400 `payment_intent_unexpected_state` | the intent as it is now, asked for |
| 401, 403, other 400 and 404 | `Refused`: a mistake of ours, no attempt will change it |

The library's `raw_request` is used, not its resource classes: the same requests, headers and errors, without
building objects of which we would read five fields.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import stripe

from app.domain.errors import Declined, KeyWornOut, Refusal, Refused, Unavailable
from app.domain.ports import Intent, IntentStatus
from app.infra.outbound import Outbound
from app.infra.payments.stripe_transport import StripeTransport

T = TypeVar("T")
API_BASE = "https://api.stripe.com"
REFUNDS_MAX = 100
_MISTAKES = (
    stripe.InvalidRequestError,
    stripe.AuthenticationError,
    stripe.PermissionError,
    stripe.IdempotencyError,
)
_UNEXPECTED_STATE = "payment_intent_unexpected_state"
_STATUS = {
    "requires_payment_method": IntentStatus.UNCONFIRMED,
    "requires_confirmation": IntentStatus.UNCONFIRMED,
    "requires_action": IntentStatus.ACTION_REQUIRED,
    "processing": IntentStatus.PROCESSING,
    "requires_capture": IntentStatus.AUTHORIZED,
    "succeeded": IntentStatus.CAPTURED,
    "canceled": IntentStatus.VOIDED,
}


class _Failure(msgspec.Struct):
    code: str | None = None
    decline_code: str | None = None
    message: str | None = None


class _Intent(msgspec.Struct):
    """What we read of Stripe's document."""

    id: str
    status: str
    amount: int
    amount_received: int = 0
    last_payment_error: _Failure | None = None


class _Refund(msgspec.Struct):
    amount: int
    status: str | None = None


class _Refunds(msgspec.Struct):
    data: list[_Refund]
    has_more: bool = False


class StripePayments:
    """Fulfils the port `Payments`. Close it with `aclose`."""

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str | None = None,
        connect_timeout_s: float = 2.0,
        call_timeout_s: float = 10.0,
        connections_max: int = 64,
    ) -> None:
        """Speak for the account of `api_key`, at Stripe or at `api_base`."""
        # A setting of the whole library, not of a client: it would send timings of earlier calls along.
        stripe.enable_telemetry = False
        outbound = Outbound(
            (api_base or API_BASE).rstrip("/"),
            connections_max=connections_max,
            connect_timeout_s=connect_timeout_s,
            call_timeout_s=call_timeout_s,
        )
        self._transport = StripeTransport(outbound)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": outbound.origin},
            http_client=self._transport,
            max_network_retries=0,
        )

    async def create(
        self, *, order_id: str, amount: int, currency: str, payment_method: str, correlation_id: str, key: str
    ) -> Intent:
        """Create the intent, unconfirmed: nothing is charged. Raises Declined for an unknown method."""
        parameters = {
            "amount": amount,
            "currency": currency.lower(),
            "payment_method": payment_method,
            "payment_method_types": ["card"],
            "capture_method": "manual",
            "metadata": {"order_id": order_id, "correlation_id": correlation_id},
        }
        try:
            return _read(await self._post("/v1/payment_intents", parameters, key))
        except stripe.InvalidRequestError as error:
            # What was asked can never be paid like this: an amount below the provider's minimum, say.
            if error.param in {"payment_method", "amount", "currency"}:
                message = error.user_message or "The provider cannot take this payment."
                raise Declined(error.code or "invalid_payment_method", None, message) from error
            raise _translated(error) from error

    async def confirm(self, intent: str, *, key: str) -> Intent:
        """Authorize. A card that wants to ask its holder declines: nobody is there to be asked."""
        return await self._change(intent, "confirm", {"error_on_requires_action": True}, key)

    async def capture(self, intent: str, *, amount: int, key: str) -> Intent:
        """Take `amount` of what is held."""
        return await self._change(intent, "capture", {"amount_to_capture": amount}, key)

    async def void(self, intent: str, *, key: str) -> Intent:
        """Give up the hold, or an intent that never came to one."""
        return await self._change(intent, "cancel", {}, key)

    async def refund(self, intent: str, *, amount: int, key: str) -> Intent:
        """Give back `amount`; when all of it was given back already, the intent says so."""
        try:
            await self._post("/v1/refunds", {"payment_intent": intent, "amount": amount}, key)
        except stripe.InvalidRequestError as error:
            if error.code not in {"charge_already_refunded", _UNEXPECTED_STATE}:
                raise _translated(error) from error
        return await self.retrieve(intent)

    async def retrieve(self, intent: str) -> Intent:
        """The intent as it is now. Raises Refused when Stripe does not know it."""
        try:
            known = _read(await self._get(f"/v1/payment_intents/{intent}", {}))
            if known.status is not IntentStatus.CAPTURED:
                return known
            answer = await self._get("/v1/refunds", {"payment_intent": intent, "limit": REFUNDS_MAX})
        except stripe.InvalidRequestError as error:
            raise _translated(error) from error
        refunds = _decoded(answer, _Refunds).data
        given_back = sum(refund.amount for refund in refunds if refund.status not in {"failed", "canceled"})
        return msgspec.structs.replace(known, refunded=given_back)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.close_async()

    async def _change(self, intent: str, verb: str, parameters: Mapping[str, Any], key: str) -> Intent:
        """One step of the intent; when it is past that step, the intent as it is."""
        try:
            return _read(await self._post(f"/v1/payment_intents/{intent}/{verb}", parameters, key))
        except stripe.InvalidRequestError as error:
            if error.code == _UNEXPECTED_STATE:
                return await self.retrieve(intent)
            raise _translated(error) from error

    async def _post(self, path: str, parameters: Mapping[str, Any], key: str) -> stripe.StripeResponse:
        return await self._request("post", path, {**parameters, "idempotency_key": key})

    async def _get(self, path: str, parameters: Mapping[str, Any]) -> stripe.StripeResponse:
        return await self._request("get", path, parameters)

    async def _request(self, method: str, path: str, parameters: Mapping[str, Any]) -> stripe.StripeResponse:
        """Ask; InvalidRequestError is left to the caller, everything else is put into the domain's words."""
        try:
            answer: stripe.StripeResponse = await self._client.raw_request_async(method, path, **parameters)
            return answer
        except stripe.InvalidRequestError:
            raise
        except stripe.StripeError as error:
            raise _translated(error) from error


def _translated(error: stripe.StripeError) -> Exception:
    """The domain's word for an error of the library (the table above)."""
    status = error.http_status or 0
    if isinstance(error, stripe.CardError):
        return _declined(error)
    if isinstance(error, _MISTAKES):
        detail = f"The payment provider refuses the request: {error.user_message or status}"
        return Refused(Refusal(_slug(error), detail))
    seen = f"{type(error).__name__} {status or error.user_message or ''}".strip()
    if status >= 500 and error.headers is not None and error.headers.get("idempotent-replayed") == "true":
        return KeyWornOut("payments", seen)
    return Unavailable("payments", seen)


def _slug(error: stripe.StripeError) -> str:
    """A stable code for a refused request."""
    return (error.code or type(error).__name__.removesuffix("Error").lower()).replace("_", "-")


def _declined(error: stripe.CardError) -> Declined:
    decline_code = error.error.decline_code if error.error is not None else None
    return Declined(
        error.code or "card_declined", decline_code, error.user_message or "The card was declined."
    )


def _decoded(answer: stripe.StripeResponse, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer.data, kind)
    except msgspec.ValidationError as error:
        raise Unavailable("payments", f"unreadable answer: {error}") from error


def _read(answer: stripe.StripeResponse) -> Intent:
    """Our view of Stripe's document."""
    told = _decoded(answer, _Intent)
    status = _STATUS.get(told.status)
    if status is None:
        raise Unavailable("payments", f"unknown status {told.status!r}")
    failure = told.last_payment_error
    if told.status == "requires_payment_method" and failure is not None:
        return Intent(
            told.id,
            IntentStatus.DECLINED,
            told.amount,
            code=failure.code,
            decline_code=failure.decline_code,
            message=failure.message or "",
        )
    return Intent(told.id, status, told.amount, captured=told.amount_received)
