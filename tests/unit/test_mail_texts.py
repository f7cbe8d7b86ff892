"""What customers read: every kind of mail, whatever is in the order."""

import re
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from msgspec.structs import replace

from app.consumer.notifications import KINDS as TOLD
from app.domain.events import Line, Reason
from app.domain.fulfilment import Fulfilment, FulfilmentLine
from app.domain.order import Order, Status
from app.domain.payment import Payment, PaymentStatus
from app.infra.mail.writing import KINDS, MailWriter, UnwritableError
from app.infra.postgres.mails import Mail

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORDER = Order(
    id="ord_01kx",
    customer_id="cus_canary",
    status=Status.ACCEPTED,
    currency="USD",
    lines=(Line("tea", 2, 1467, 2934), Line("cup", 1, 5, 5)),
    total=2939,
    payment=Payment(PaymentStatus.CAPTURED, captured=2939),
    payment_method="pm_canary",
    correlation_id="corr-canary",
    created_at=AT,
    updated_at=AT,
    fulfilments=(
        Fulfilment("ful_1", "east", (FulfilmentLine("tea", 2),), tracking_number="SBX1"),
        Fulfilment("ful_2", "west", (FulfilmentLine("cup", 1),), tracking_number="SBX2"),
    ),
    metadata={"canary": "canary"},
)
NAMES = {"tea": "Earl Grey <b>& more</b>"}


def mail_of(kind: str, order: Order = ORDER, to: str | None = "ada@example.com") -> EmailMessage:
    """A mail about an order."""
    return MailWriter("Tea & Söhne <orders@shop.example>").write(Mail(kind, 1, AT, to, order, NAMES))


def text(message: EmailMessage) -> str:
    """Its plain text."""
    return message.get_body(("plain",)).get_content()


def page(message: EmailMessage) -> str:
    """Its HTML."""
    return message.get_body(("html",)).get_content()


def test_there_is_a_mail_for_whatever_is_told():
    """Templates and events agree."""
    assert set(TOLD.values()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_is_whole_and_names_nobody(kind: str):
    """Subject, text and page, by whom and to whom; no word of the customer, the card or our own ids."""
    message = mail_of(kind, replace(ORDER, reason=Reason("given_up", "canary")))
    assert message["Message-ID"] == f"<ord_01kx.{kind}@shop.example>"
    assert message["To"] == "ada@example.com"
    assert message["From"].addresses[0].display_name == "Tea & Söhne"
    assert "ord_01kx" in message["Subject"]
    for body in (text(message), page(message)):
        assert "{" not in body
        assert "canary" not in body
        assert "None" not in body
    assert text(message).endswith("Tea & Söhne\n")
    assert "\n\n\n" not in text(message)
    assert "Earl Grey <b>" not in page(message)
    assert max(map(len, bytes(message).splitlines())) < 998
    assert bytes(message) == bytes(message).decode("ascii").encode(), "any server takes it"


def test_a_mail_written_again_is_the_same():
    """But for the boundaries of its parts: so a second copy is known as one."""
    first, second = mail_of("completed"), mail_of("completed")
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Date"] == second["Date"] == "Sun, 01 Mar 2026 12:00:00 +0000"
    assert (text(first), page(first)) == (text(second), page(second))


def test_what_was_ordered_is_told_with_its_price():
    """By name; by SKU where a product has none any more."""
    said = text(mail_of("accepted"))
    assert "2 × Earl Grey <b>& more</b>: 29.34 USD" in said
    assert "1 × cup: 0.05 USD" in said
    assert "Total: 29.39 USD" in said
    assert "2 × Earl Grey &lt;b&gt;&amp; more&lt;/b&gt;" in page(mail_of("accepted"))


def test_money_has_the_decimals_of_its_currency():
    """Yen have none."""
    assert "Total: 2939 JPY" in text(mail_of("confirmed", replace(ORDER, currency="JPY")))


def test_a_free_order_speaks_of_no_payment():
    """Nobody is asked for money, so nobody is told of it."""
    free = replace(ORDER, total=0, payment=Payment(PaymentStatus.NOT_REQUIRED))
    for kind in ("accepted", "confirmed", "completed"):
        assert not re.search("bank|charged|payment", text(mail_of(kind, free)))


def test_parcels_are_told_with_their_tracking_numbers():
    """And with what is in each."""
    for body in (text(mail_of("dispatched")), page(mail_of("dispatched"))):
        assert "2 parcels" in body
        assert body.index("SBX1") < body.index("Earl Grey") < body.index("SBX2") < body.index("cup")
    one = replace(ORDER, fulfilments=ORDER.fulfilments[:1])
    assert "Your parcel has been given to the carrier" in text(mail_of("dispatched", one))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason("out_of_stock", "tea: 3 wanted", skus=("tea", "cup")), "not have enough"),
        (Reason("undeliverable", "we do not deliver there"), "does not deliver to the address"),
        (Reason("payment_declined", "x", (), "card_declined", "insufficient_funds"), "not enough money"),
        (Reason("payment_declined", "x", (), "expired_card"), "the card has expired"),
        (Reason("payment_declined", "x", (), "card_declined", "stolen_card"), "Your bank has refused"),
        (Reason("something_new", "x"), "Something went wrong"),
        (None, "Something went wrong"),
    ],
)
def test_a_rejection_is_told_in_plain_words(reason: Reason | None, said: str):
    """Never in codes, nor why the bank suspects what."""
    message = mail_of("rejected", replace(ORDER, reason=reason, payment=Payment(PaymentStatus.VOIDED)))
    for body in (text(message), page(message)):
        assert said in body
        assert "stolen" not in body
        assert "You pay nothing" in body
    assert ("cup" in text(message)) is (reason is not None and bool(reason.skus))


def test_money_that_came_back_is_told():
    """A charge that was undone is in the mail that ends the order."""
    refunded = replace(ORDER, payment=Payment(PaymentStatus.REFUNDED, captured=2939, refunded=2939))
    for kind in ("cancelled", "rejected"):
        assert "29.39 USD went back to you" in text(mail_of(kind, refunded))


@pytest.mark.parametrize(
    "to",
    [
        None,
        "",
        "ada",
        "ada@x.example\r\nBcc: eve@x.example",
        "ada@x.example\nBcc: eve@x.example",
        "ada@x.example\n",
        "a@x.example,eve@x.example",
        "a@b@c.example",
        "<a@x.example>",
        "a b@x.example",
        "a@x.example> SIZE=1",
        "ä@x.example",
        "=?utf-8?b?YkB4LnksIGNAeS56?=@x.example",  # an encoded comma
        "=?utf-8?b?YQ0KQmNjOiB4QHkueg==?=@x.example",  # an encoded end of line
        "=?utf-8?q?a?=@x.example",
        ".a@x.example",
        "a..b@x.example",
        "a@x..example",
        "a@x.example.",
        "a@-",
        "a" * 65 + "@x.example",
        "a@" + "b" * 253,
    ],
)
def test_nothing_is_written_to_what_is_no_address(to: str | None):
    """Whatever was put into the database: one address, no second header."""
    with pytest.raises(UnwritableError):
        mail_of("accepted", to=to)


@pytest.mark.parametrize(
    "to",
    [
        "ada@x.example",
        "a" * 64 + "@" + "b" * 63 + ".example",
        "a=b?c@x",
        "!#$%&'*+/^_`{|}~-.x@1.2.3.4",
        "-oQ@x",
    ],
)
def test_an_address_is_put_down_as_it_is(to: str):
    """What the server is told is what the customer said, and the header says the same."""
    message = mail_of("accepted", to=to)
    assert str(message["To"]) == to
    assert f"To: {to}\r\n".encode() in message.as_bytes().replace(b"\r\n ", b" ").replace(b": \r\n", b": ")


def test_names_of_products_stay_in_the_text():
    """A line end in one of them makes no header, and a page runs nothing."""
    nasty = "Tea\r\nBcc: eve@x.example\r\n\r\n<script>alert(1)</script>{{ 7 * 7 }}"
    about = Mail("accepted", 1, AT, "ada@example.com", ORDER, {"tea": nasty})
    message = MailWriter("orders@shop.example").write(about)
    assert message["Bcc"] is None
    assert message.get_all("To") == ["ada@example.com"]
    assert "<script>" not in page(message)
    assert "49" not in text(message)
