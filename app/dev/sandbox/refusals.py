"""Stripe's refusals: one exception, and a constructor for each kind of error body that we use.

Owns the shape `{"error": {"type", "code", "message", "param", …}}` and the status codes. Pure. `kept` says
whether the answer is stored with the idempotency key: Stripe stores what its endpoint answered once it
began to work (declines, unexpected states), and does not store refusals made before (validation, keys).
"""

from typing import Any

import msgspec

DOCUMENTATION = "https://stripe.com/docs/error-codes/"


class StripeRefusal(Exception):
    """An error answer of the payment provider."""

    def __init__(self, status: int, error: dict[str, Any], *, kept: bool = False) -> None:
        super().__init__(error["message"])
        self.status = status
        self.error = error
        self.kept = kept

    def body(self) -> bytes:
        """The JSON that is answered."""
        return msgspec.json.encode({"error": self.error})


def _invalid(status: int, message: str, code: str | None = None, param: str | None = None) -> StripeRefusal:
    error: dict[str, Any] = {"type": "invalid_request_error", "message": message}
    if code is not None:
        error |= {"code": code, "doc_url": DOCUMENTATION + code.replace("_", "-")}
    if param is not None:
        error["param"] = param
    return StripeRefusal(status, error)


def invalid(message: str, code: str | None = None, param: str | None = None) -> StripeRefusal:
    """400: a parameter is wrong."""
    return _invalid(400, message, code, param)


def unknown_parameter(name: str) -> StripeRefusal:
    """400: a field this endpoint does not have."""
    return invalid(f"Received unknown parameter: {name}", "parameter_unknown", name)


def missing_parameter(name: str) -> StripeRefusal:
    """400: a required field is not there."""
    return invalid(f"Missing required param: {name}.", "parameter_missing", name)


def no_such_object(what: str, identity: str, param: str, *, in_path: bool) -> StripeRefusal:
    """`resource_missing`: 404 when the URL names it, 400 when a parameter does."""
    message = f"No such {what}: '{identity[:100]}'"
    return _invalid(404 if in_path else 400, message, "resource_missing", param)


def unrecognized_url(method: str, path: str) -> StripeRefusal:
    """404: no such endpoint."""
    return _invalid(404, f"Unrecognized request URL ({method}: {path[:200]}).")


def unauthorized(key: str | None) -> StripeRefusal:
    """401: no key, or not a test key. The key is shown as Stripe shows it: its ends only."""
    if key is None:
        return _invalid(401, "You did not provide an API key.")
    return _invalid(401, f"Invalid API Key provided: {key[:3]}{'*' * 8}{key[-4:] if len(key) > 11 else ''}")


def unexpected_state(verb: str, intent: dict[str, Any], allowed: tuple[str, ...]) -> StripeRefusal:
    """400 `payment_intent_unexpected_state`, with the intent inside."""
    message = (
        f"This PaymentIntent could not be {verb} because it has a status of {intent['status']}. "
        f"Only a PaymentIntent with one of the following statuses may be {verb}: {', '.join(allowed)}."
    )
    refusal = invalid(message, "payment_intent_unexpected_state")
    refusal.error["payment_intent"] = intent
    refusal.kept = True
    return refusal


def card_error(code: str, decline_code: str | None, message: str, charge: str | None) -> StripeRefusal:
    """402: the card said no. The intent is added to the body by whoever stored it."""
    error: dict[str, Any] = {"type": "card_error", "code": code, "message": message}
    error["doc_url"] = DOCUMENTATION + code.replace("_", "-")
    if decline_code is not None:
        error["decline_code"] = decline_code
    if charge is not None:
        error["charge"] = charge
    return StripeRefusal(402, error, kept=True)


def key_used_otherwise(key: str, *, endpoint: bool) -> StripeRefusal:
    """400 `idempotency_error`: the key was first used with other parameters, or for another endpoint."""
    which = "endpoint" if endpoint else "parameters"
    message = (
        f"Keys for idempotent requests can only be used with the same {which} they were first used with. "
        f"Try using a key other than '{key}' if you meant to execute a different request."
    )
    return StripeRefusal(400, {"type": "idempotency_error", "message": message})


def key_in_use(key: str) -> StripeRefusal:
    """409 `idempotency_key_in_use`: the first request with this key has not been answered yet."""
    message = (
        f"There is currently another in-progress request using this idempotency key: {key}. Try again later."
    )
    return StripeRefusal(
        409, {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": message}
    )


def server_error() -> StripeRefusal:
    """500: what Stripe answers when it is not well. Whether anything was done cannot be told from it."""
    message = "An unknown error occurred"
    return StripeRefusal(500, {"type": "api_error", "message": message})


def too_many_requests() -> StripeRefusal:
    """429 `rate_limit`."""
    message = (
        "Too many requests hit the API too quickly. We recommend an exponential backoff of your requests."
    )
    return StripeRefusal(429, {"type": "invalid_request_error", "code": "rate_limit", "message": message})
