"""Whoever follows events may send anything: the answer says what is wrong with it, and never that we are."""

import asyncio

import pytest

from tests.integration.gateway.served import KEY, Gateway, raw

HOSTILE = [
    "%00", "%00:1", "ord_%00:1", "%F0%9F%92%A9:1", "a:b:c", ":1", "1:", "-1", "1.0", "1e3", "0x1", "%2B1",
    "9" * 10, "9" * 300, "x" * 5000, "'", "';--:1", "%0d%0aX-Evil:1", "null", "%FF", "%ED%A0%80", "%", "*",
    "ord_06dzpv7x2m8wq3k9n5t1r4c7j0:1", "ord_06dzpv7x2m8wq3k9n5t1r4c7j0:0", "%E2%80%AE:1", "%20", "%25",
    "%D9%A1", "..%2F..", "cd-1467:1&after=2",
]  # fmt: skip
STREAM = "Accept: text/event-stream"
JSON = "Accept: application/json"


async def ask(gateway: Gateway, target: str, *headers: str) -> tuple[int, bytes]:
    """One GET as it is written; the status and the head of the answer."""
    lines = (
        f"GET {target} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {KEY}",
        "Connection: close",
        *headers,
    )
    sent = "\r\n".join((*lines, "", "")).encode("latin-1")
    async with asyncio.timeout(60):
        head = await raw(gateway.port, sent)
    return int(head.split(b" ", 2)[1]), head


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_place_to_go_on_that_is_none_is_400(shared_gateway: Gateway, text: str):
    """In the query and in the header, of an order and of everything."""
    order = await shared_gateway.place()
    for path in (f"/v1/orders/{order['id']}/events", "/v1/events"):
        for accept in (STREAM, JSON):
            status, head = await ask(shared_gateway, f"{path}?after={text}", accept)
            assert status == (406 if accept == JSON and path == "/v1/events" else 400), head
        if "%" not in text and "&" not in text:
            status, head = await ask(shared_gateway, path, STREAM, f"Last-Event-ID: {text}")
            assert status in {400, 431}, head


@pytest.mark.parametrize("text", [*HOSTILE, "ord_", "ord_06dzpv7x2m8wq3k9n5t1r4c7j"])
async def test_an_order_that_is_none_has_no_events(shared_gateway: Gateway, text: str):
    """Whether they are asked for as JSON or followed."""
    for accept in (STREAM, JSON):
        status, head = await ask(shared_gateway, f"/v1/orders/{text.partition('&')[0]}/events", accept)
        assert status in {400, 404}, head


@pytest.mark.parametrize(
    "query",
    [
        "type=", "type=x", "type=order.accepted.v1,,", "type=%00", "type=order", "types=x", "x=1", "%00=1",
        "after=1&after=2", "type=order.accepted&type=order.accepted", "type=" + "order.accepted," * 300,
        "cursor=x", "limit=0",
    ],
)  # fmt: skip
async def test_what_is_asked_of_everything_is_said_rightly_or_refused(shared_gateway: Gateway, query: str):
    """Nobody waits for events of a type that there is not."""
    status, head = await ask(shared_gateway, f"/v1/events?{query}", STREAM)
    assert status == 400, head
