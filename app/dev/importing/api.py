"""Owns how the import talks to the API: what it sends, what it reads, and when it asks again.

Everything it asks may be asked twice (reads, PUT, or POST under an idempotency key), so whatever passes is
asked again, for as long as anything at all goes on.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from app.dev.importing.client import Answer, Client, NoAnswerError
from app.dev.stack.errors import FAILED, UNAVAILABLE, StackError
from app.domain.money import Money

PAGE_SIZE: Final = 200
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_MAX_S: Final = 5.0
_RETRY_AFTER_MAX_S: Final = 30.0
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


class Totals(msgspec.Struct, frozen=True):
    """What an order comes to."""

    total: Money


class Sums(msgspec.Struct, frozen=True):
    """What the order's payment did."""

    authorized: Money
    captured: Money
    refunded: Money


class Line(msgspec.Struct, frozen=True):
    """One line of an order."""

    sku: str
    quantity: int


class Why(msgspec.Struct, frozen=True):
    """Why an order was rejected."""

    code: str
    detail: str


class Order(msgspec.Struct, frozen=True):
    """An order, as far as the import looks at it."""

    id: str
    status: str
    created_at: str
    totals: Totals
    payment: Sums
    lines: tuple[Line, ...]
    reason: Why | None = None


class Product(msgspec.Struct, frozen=True):
    """A product of the catalogue."""

    sku: str
    price: Money


class Shelf(msgspec.Struct, frozen=True):
    """Pieces of a SKU in one warehouse."""

    on_hand: int
    reserved: int


class Stock(msgspec.Struct, frozen=True):
    """Pieces of a SKU, warehouse by warehouse."""

    sku: str
    warehouses: tuple[Shelf, ...]


class Problem(msgspec.Struct, frozen=True):
    """Why the API said no (RFC 9457)."""

    type: str = ""
    detail: str = ""


class _Page(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]
    next_cursor: str | None = None


class RefusedError(Exception):
    """The API said no, for good."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{status} {problem.type.rpartition('/')[2]}: {problem.detail}")
        self.status = status


class Going:
    """Whether anything still goes on: everybody who gets something done says so."""

    def __init__(self, patience_s: float) -> None:
        """Lose patience after so many seconds in which nothing got done."""
        self._patience_s = patience_s
        self._last = time.monotonic()

    def on(self) -> None:
        """Something got done."""
        self._last = time.monotonic()

    def check(self, waiting_for: str) -> None:
        """Raises StackError when nothing got done for too long."""
        if time.monotonic() - self._last > self._patience_s:
            raise StackError(
                f"Nothing went on for {self._patience_s:g} s; waiting for {waiting_for}. "
                "Run the same command again to go on where this left off.",
                UNAVAILABLE if waiting_for == "the gateway" else FAILED,
            )


class Api:
    """The API of one stack. Its methods raise RefusedError, and StackError when patience is lost."""

    def __init__(self, client: Client, going: Going) -> None:
        """Ask through `client`, for as long as anything is `going`."""
        self._client = client
        self._going = going

    async def greet(self) -> None:
        """See that the API is there and knows the key. Raises StackError at once if not."""
        try:
            answer = await self._client.ask("GET", "/v1/products?limit=1")
        except NoAnswerError as error:
            raise StackError(f"The gateway does not answer ({error}).", UNAVAILABLE) from error
        if answer.status in {401, 403}:
            raise StackError("The gateway does not accept this API key.")
        if answer.status not in _PASSING and answer.status != 200:
            raise StackError(f"The gateway answers {answer.status} where its products should be.")

    async def send(self, method: str, path: str, body: object, *, key: str | None = None) -> Answer:
        """Ask until there is an answer that is final. Raises RefusedError where it is a no."""
        encoded = None if body is None else msgspec.json.encode(body)
        headers = {} if key is None else {"Idempotency-Key": key}
        pause = _PAUSE_FIRST_S
        while True:
            try:
                answer = await self._client.ask(method, path, encoded, headers)
            except NoAnswerError:
                answer = None
            if answer is not None and not _passes(answer):
                self._going.on()
                if answer.status < 400:
                    return answer
                raise RefusedError(answer.status, _problem(answer))
            self._going.check("the gateway")
            await asyncio.sleep(max(pause * random.uniform(0.5, 1), _asked_to_wait_s(answer)))  # noqa: S311
            pause = min(pause * 2, _PAUSE_MAX_S)

    async def pages(self, path: str, kind: type[T], **query: str) -> AsyncIterator[list[T]]:
        """Every page of a list, its items decoded as `kind`."""
        cursor = None
        while True:
            wanted = query | {"limit": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor else {})
            answer = await self.send("GET", f"{path}?{urlencode(wanted)}", None)
            page = msgspec.json.decode(answer.body, type=_Page)
            yield [msgspec.json.decode(item, type=kind) for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return


def _passes(answer: Answer) -> bool:
    """Whether the same request may be answered otherwise in a while."""
    return answer.status in _PASSING or (answer.status == 409 and "retry-after" in answer.headers)


def _asked_to_wait_s(answer: Answer | None) -> float:
    """What Retry-After says, in seconds, within reason."""
    text = answer.headers.get("retry-after", "") if answer else ""
    return min(float(text), _RETRY_AFTER_MAX_S) if text.isdigit() else 0.0


def _problem(answer: Answer) -> Problem:
    try:
        return msgspec.json.decode(answer.body, type=Problem)
    except msgspec.DecodeError:
        return Problem(detail=answer.body[:200].decode("utf-8", "replace"))


def replayed(answer: Answer) -> bool:
    """Whether the answer was given before, to the same key."""
    return answer.headers.get("idempotent-replayed") == "true"


def body_of_order(customer: str, cents: int, lines: list[dict[str, Any]], day: str) -> dict[str, Any]:
    """An order as it is sent."""
    return {
        "customer_id": customer,
        "currency": "USD",
        "lines": lines,
        "payment_method": "pm_card_visa",
        "expected_total": {"amount": cents, "currency": "USD"},
        "metadata": {"purchased_on": day},
    }
