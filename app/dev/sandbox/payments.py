"""The payment provider's HTTP API: routes, keys, and misbehaviour on request.

Owns `/v1/payment_intents` and `/v1/refunds`. One account: every `sk_test_…` key sees the same intents and
shares one space of idempotency keys. Each POST is one transaction: the intent, its ledger lines and the
stored answer. If the process dies in the middle, either all of that is there (and the same key answers it)
or none is.
"""

import base64
import binascii
import functools
import sqlite3
import time
from collections.abc import Callable
from typing import NamedTuple

from app.dev.sandbox import books, idempotency, intents
from app.dev.sandbox.control import Control, Fault
from app.dev.sandbox.forms import Form
from app.dev.sandbox.http import Reply, Request, Response
from app.dev.sandbox.idempotency import Answer, Key
from app.dev.sandbox.intents import Change, PaymentIntent, new_id
from app.dev.sandbox.refusals import (
    StripeRefusal,
    invalid,
    key_in_use,
    server_error,
    too_many_requests,
    unauthorized,
    unrecognized_url,
)
from app.dev.sandbox.store import Store

PREFIXES = ("/v1/payment_intents", "/v1/refunds")


class Route(NamedTuple):
    """What a request asks for: the operation's name (also the control route's) and the intent in the path."""

    operation: str
    identity: str = ""


class PaymentsApi:
    """Answers the requests of the payment provider."""

    def __init__(self, store: Store, control: Control) -> None:
        self._store = store
        self._control = control
        self._keys_in_use: set[str] = set()

    async def handle(self, request: Request) -> Reply:
        """Answer one request as Stripe would, or misbehave as the control route asked."""
        request_id = new_id("req_", 14)
        try:
            route = _route(request)
            fault = self._control.draw("payments", route.operation)
            work = functools.partial(self._work, request, route, request_id)
            reply = await self._perform(fault, work, request)
        except StripeRefusal as refusal:
            reply = Response(refusal.status, refusal.body())
        if isinstance(reply, Response):
            version = request.headers.get("stripe-version", "")
            extra = (("request-id", request_id), *((("stripe-version", version),) if version else ()))
            return Response(reply.status, reply.body, (*extra, *reply.headers))
        return reply

    async def _perform(
        self,
        fault: Fault | None,
        work: Callable[[Fault | None], Callable[[sqlite3.Connection], Response]],
        request: Request,
    ) -> Reply:
        """Run the work under its key's lock, which is held until the answer leaves."""

        async def run() -> Response:
            return await self._store.run(work(fault))

        if request.method != "POST":
            return await self._control.perform(fault, run, _failing)
        key = idempotency.checked(request.headers.get("idempotency-key"))
        if key is None:
            return await self._control.perform(fault, run, _failing)
        if key in self._keys_in_use:
            raise key_in_use(key)
        self._keys_in_use.add(key)
        try:
            return await self._control.perform(fault, run, _failing)
        finally:
            self._keys_in_use.discard(key)

    def _work(
        self, request: Request, route: Route, request_id: str, fault: Fault | None
    ) -> Callable[[sqlite3.Connection], Response]:
        """Check what needs no database, and return the transaction that does the rest."""
        _authenticate(request.headers.get("authorization"))
        now = time.time()
        if request.method == "GET":
            form = Form(b"", request.query)
            return lambda database: Response(200, _read(database, route, form))
        kind = request.headers.get("content-type", "application/x-www-form-urlencoded")
        if request.body and not kind.startswith("application/x-www-form-urlencoded"):
            raise invalid(f"Invalid content type: {kind[:60]}. Use application/x-www-form-urlencoded.")
        form = Form(request.body, request.query)
        name = idempotency.checked(request.headers.get("idempotency-key"))
        key = None if name is None else Key(name, form.fingerprint(request.path))

        def once(database: sqlite3.Connection) -> Response:
            if key is not None:
                stored = idempotency.recall(database, key, now)
                if stored is not None:
                    return stored
            answer = _write(database, route, form, now, fault)
            if key is not None and answer.kept:
                idempotency.remember(database, key, answer, request_id, now)
            return Response(answer.status, answer.body)

        return once


def _failing(status: int) -> Response:
    refusal = too_many_requests() if status == 429 else server_error()
    return Response(refusal.status, refusal.body())


def _route(request: Request) -> Route:
    match (request.method, *request.path.strip("/").split("/")[1:]):
        case ("POST", "payment_intents"):
            return Route("create")
        case ("GET", "payment_intents"):
            return Route("list")
        case ("GET", "payment_intents", identity):
            return Route("retrieve", identity)
        case ("POST", "payment_intents", identity, ("confirm" | "capture" | "cancel") as verb):
            return Route(verb, identity)
        case ("POST", "refunds"):
            return Route("refund")
        case ("GET", "refunds"):
            return Route("list_refunds")
    raise unrecognized_url(request.method, request.path)


def _authenticate(header: str | None) -> None:
    """Any `sk_test_…` key will do, as bearer token or as the user of basic authentication."""
    scheme, _, credentials = (header or "").partition(" ")
    key: str | None = None
    if scheme.lower() == "bearer":
        key = credentials.strip()
    elif scheme.lower() == "basic":
        try:
            key = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = None
    if not key or not key.startswith("sk_test_"):
        raise unauthorized(key or None)


def _read(database: sqlite3.Connection, route: Route, form: Form) -> bytes:
    if route.operation == "retrieve":
        return books.retrieve(database, route.identity, form)
    if route.operation == "list":
        return books.list_intents(database, form)
    return books.list_refunds(database, form)


def _write(database: sqlite3.Connection, route: Route, form: Form, now: float, fault: Fault | None) -> Answer:
    """Do the work of a POST; its refusals are answers that the key may keep."""
    broken = fault is not None and fault.mode == "error_500_stored"
    if broken and fault is not None and not fault.after_work:
        return Answer(500, server_error().body(), kept=True)
    try:
        answer = _change(database, route, form, now)
    except StripeRefusal as refusal:
        answer = Answer(refusal.status, refusal.body(), refusal.kept)
    if broken:
        return Answer(500, server_error().body(), kept=True)
    return answer


def _change(database: sqlite3.Connection, route: Route, form: Form, now: float) -> Answer:
    if route.operation == "refund":
        return Answer(200, books.refund(database, form, now), kept=True)
    if route.operation == "create":
        change = intents.create(form, int(now))
    else:
        change = _apply(route.operation, books.load(database, route.identity), form, int(now))
    document = books.save(database, change, now, new=route.operation == "create")
    if change.declined is not None:
        return Answer(change.declined.status, change.declined.body(), kept=True)
    return Answer(200, document, kept=True)


def _apply(operation: str, intent: PaymentIntent, form: Form, now: int) -> Change:
    if operation == "confirm":
        return intents.confirm(intent, form)
    if operation == "capture":
        return intents.capture(intent, form)
    return intents.cancel(intent, form, now)
