"""The payment provider's books: intents, refunds, and the ledger of money that moved.

Owns the rows of the tables `intents`, `refunds` and `ledger`. Every function takes the database of a
transaction that the caller (`Store.run`) opened, so that a change, its ledger lines and the answer stored
with its idempotency key are one commit. The database itself refuses a second capture of an intent.
"""

import sqlite3

import msgspec

from app.dev.sandbox.forms import Form
from app.dev.sandbox.intents import AMOUNT_MAX, Change, PaymentIntent, new_id
from app.dev.sandbox.refusals import invalid, missing_parameter, no_such_object, unexpected_state

PAGE_SIZE_MAX = 100
REFUND_REASONS = ("duplicate", "fraudulent", "requested_by_customer")

_encode = msgspec.json.encode
_decode_intent = msgspec.json.Decoder(PaymentIntent).decode


def load(database: sqlite3.Connection, identity: str, *, in_path: bool = True) -> PaymentIntent:
    """One intent. Raises StripeRefusal `resource_missing`."""
    row = database.execute("SELECT document FROM intents WHERE id = ?", (identity,)).fetchone()
    if row is None:
        param = "intent" if in_path else "payment_intent"
        raise no_such_object("payment_intent", identity, param, in_path=in_path)
    return _decode_intent(row[0])


def save(database: sqlite3.Connection, change: Change, now: float, *, new: bool) -> bytes:
    """Write a changed intent and its ledger lines; returns the document as it is answered."""
    intent = change.intent
    document = _encode(intent)
    if new:
        database.execute("INSERT INTO intents (id, document) VALUES (?, ?)", (intent.id, document))
    else:
        database.execute("UPDATE intents SET document = ? WHERE id = ?", (document, intent.id))
    for line in change.lines:
        _enter(database, intent, line.kind, line.amount, now)
    return document


def _enter(database: sqlite3.Connection, intent: PaymentIntent, kind: str, amount: int, now: float) -> None:
    database.execute(
        "INSERT INTO ledger (intent, at, currency, kind, amount) VALUES (?, ?, ?, ?, ?)",
        (intent.id, now, intent.currency, kind, amount),
    )


def retrieve(database: sqlite3.Connection, identity: str, form: Form) -> bytes:
    """One intent's document."""
    form.finish()
    return _encode(load(database, identity))


def list_intents(database: sqlite3.Connection, form: Form) -> bytes:
    """A page of intents, newest first."""
    return _page(database, form, "intents", {})


def list_refunds(database: sqlite3.Connection, form: Form) -> bytes:
    """A page of refunds, newest first, of all intents or of one."""
    intent = form.text("payment_intent")
    return _page(database, form, "refunds", {} if intent is None else {"intent = ?": intent})


def _page(database: sqlite3.Connection, form: Form, table: str, only: dict[str, str | int]) -> bytes:
    """Up to `limit` documents (10), newest first; those that meet every condition of `only`."""
    limit = form.integer("limit", 1, PAGE_SIZE_MAX) or 10
    after = form.text("starting_after")
    form.finish()
    if after is not None:
        only = {**only, "position < ?": _position(database, table, after)}
    conditions = " AND ".join(["true", *only])
    statement = f"SELECT document FROM {table} WHERE {conditions} ORDER BY position DESC LIMIT ?"  # noqa: S608
    rows = [msgspec.Raw(row[0]) for row in database.execute(statement, (*only.values(), limit + 1))]
    url = "/v1/payment_intents" if table == "intents" else "/v1/refunds"
    return _encode({"object": "list", "data": rows[:limit], "has_more": len(rows) > limit, "url": url})


def _position(database: sqlite3.Connection, table: str, identity: str) -> int:
    row = database.execute(f"SELECT position FROM {table} WHERE id = ?", (identity,)).fetchone()  # noqa: S608
    if row is None:
        raise no_such_object(table[:-1], identity, "starting_after", in_path=False)
    return int(row[0])


def refund(database: sqlite3.Connection, form: Form, now: float) -> bytes:
    """Give captured money back, all that is left of it or a part."""
    identity = form.text("payment_intent")
    amount = form.integer("amount", 1, AMOUNT_MAX)
    reason = form.choice("reason", REFUND_REASONS)
    metadata = form.mapping("metadata")
    form.finish()
    if identity is None:
        raise missing_parameter("payment_intent")
    intent = load(database, identity, in_path=False)
    if intent.status != "succeeded":
        raise unexpected_state("refunded", msgspec.to_builtins(intent), ("succeeded",))
    (refunded,) = database.execute(
        "SELECT coalesce(sum(amount), 0) FROM refunds WHERE intent = ?", (identity,)
    ).fetchone()
    left = intent.amount_received - refunded
    if left == 0:
        raise invalid(f"Charge {intent.latest_charge} has already been refunded.", "charge_already_refunded")
    if amount is not None and amount > left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", None, "amount"
        )
    document = {
        "id": new_id("re_3"),
        "object": "refund",
        "amount": left if amount is None else amount,
        "charge": intent.latest_charge,
        "created": int(now),
        "currency": intent.currency,
        "metadata": metadata,
        "payment_intent": identity,
        "reason": reason,
        "status": "succeeded",
    }
    body = _encode(document)
    database.execute(
        "INSERT INTO refunds (id, intent, amount, document) VALUES (?, ?, ?, ?)",
        (document["id"], identity, document["amount"], body),
    )
    _enter(database, intent, "refunded", int(str(document["amount"])), now)
    return body


def totals(database: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Money that moved, by currency and kind, from the ledger."""
    found: dict[str, dict[str, int]] = {}
    for currency, kind, amount in database.execute(
        "SELECT currency, kind, sum(amount) FROM ledger GROUP BY currency, kind"
    ):
        found.setdefault(currency, {})[kind] = amount
    return found
