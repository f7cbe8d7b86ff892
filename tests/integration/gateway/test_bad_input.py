"""Every wrong request gets a 4xx problem that names the field; never a 500, never a stack trace."""

import asyncio
import time

import pytest

from tests.integration.gateway.served import KEY, Gateway, problem, raw

LINE = {"sku": "tea-earl-grey", "quantity": 1}


def lines(**changes):
    """One line, changed."""
    return [{**LINE, **changes}]


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"lines": lines(quantity=0)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=-1)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=100_001)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=2**70)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=1.0)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=1.5)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=True)}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity="1")}, ["/lines/0/quantity"]),
        ({"lines": lines(quantity=None)}, ["/lines/0/quantity"]),
        ({"lines": [{"sku": "tea-earl-grey"}]}, ["/lines/0/quantity"]),
        ({"lines": [LINE, {**LINE, "colour": "red"}]}, ["/lines/1/colour"]),
        ({"lines": lines(sku="nobody-has-this")}, ["/lines/0/sku"]),
        ({"lines": lines(sku="ord_1")}, ["/lines/0/sku"]),
        ({"lines": lines(sku="a:b")}, ["/lines/0/sku"]),
        ({"lines": lines(sku="")}, ["/lines/0/sku"]),
        ({"lines": lines(sku="x" * 65)}, ["/lines/0/sku"]),
        ({"lines": []}, ["/lines"]),
        ({"lines": [LINE] * 1001}, ["/lines"]),
        ({"lines": "tea"}, ["/lines"]),
        ({"lines": ...}, ["/lines"]),
        ({"lines": [None]}, ["/lines/0"]),
        ({"currency": "EUR"}, ["/currency"]),
        ({"currency": "usd"}, ["/currency"]),
        ({"currency": "USDX"}, ["/currency"]),
        ({"currency": 840}, ["/currency"]),
        ({"customer_id": "a:b"}, ["/customer_id"]),
        ({"customer_id": "a*"}, ["/customer_id"]),
        ({"customer_id": "O'Hara"}, ["/customer_id"]),
        ({"customer_id": "a\r\nb"}, ["/customer_id"]),
        ({"customer_id": "a\n"}, ["/customer_id"]),
        ({"customer_id": "a\0b"}, ["/customer_id"]),
        ({"customer_id": ...}, ["/customer_id"]),
        ({"customer_id": None}, ["/customer_id"]),
        ({"payment_method": "pm card"}, ["/payment_method"]),
        ({"payment_method": None}, ["/payment_method"]),
        ({"on_shortage": "ask"}, ["/on_shortage"]),
        ({"expected_total": 2934}, ["/expected_total"]),
        ({"expected_total": {"amount": 2934.0, "currency": "USD"}}, ["/expected_total/amount"]),
        ({"expected_total": {"amount": 2934, "currency": "EUR"}}, ["/expected_total/currency"]),
        ({"expected_total": {"amount": -1, "currency": "USD"}}, ["/expected_total/amount"]),
        ({"metadata": {"a": 1}}, ["/metadata/a"]),
        ({"metadata": {"a/b~c": "x" * 501}}, ["/metadata/a~1b~0c"]),
        ({"metadata": {"k" * 41: "x"}}, ["/metadata/" + "k" * 41]),
        ({"metadata": {str(n): "x" for n in range(51)}}, ["/metadata"]),
        ({"metadata": {"a": "nul\0"}}, ["/metadata/a"]),
        ({"metadata": {"a\r\n": "x"}}, ["/metadata/a\r\n"]),
        ({"shipping_address": {"name": "A"}}, ["/shipping_address/" + f for f in ("line1", "city", "postal_code", "country")]),  # noqa: E501
        ({"shipping_address": {"name": "A", "line1": "1", "city": "C", "postal_code": "1", "country": "us"}}, ["/shipping_address/country"]),  # noqa: E501
        ({"price": 1}, ["/price"]),
        ({"lines": lines(quantity=0), "currency": "x", "nonsense": 1}, ["/currency", "/lines/0/quantity", "/nonsense"]),  # noqa: E501
    ],
)  # fmt: skip
async def test_a_wrong_order_is_refused_and_every_wrong_field_named(
    shared_gateway: Gateway, changes, pointers
):
    """The faults are named by JSON pointers, all at once, and nothing is stored."""
    stored = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM idempotency)"
    before = await shared_gateway.database.fetchrow(stored)
    answer = await shared_gateway.post("/v1/orders", shared_gateway.order(**changes))
    problem(answer, 422, "invalid-request", *pointers)
    assert await shared_gateway.database.fetchrow(stored) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"customer_id": "\xff"}',
        b'\xff\xfe{"a":1}',
        b'{"customer_id": "\xed\xa0\x80"}',
        b'{"customer_id": "\\ud800"}',
        b'{"customer_id": "a\x00b"}',
        b'{"customer_id": "a\nb"}',
        b"[" * 5000 + b"]" * 5000,
        b'{"metadata": ' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
        b'{"customer_id": NaN}',
        b"{} {}",
    ],
)
async def test_what_is_not_json_is_refused_as_such(shared_gateway: Gateway, body: bytes):
    """Broken syntax, broken UTF-8 and deep nesting are the caller's mistake, not our crash."""
    problem(await shared_gateway.post("/v1/orders", body), 400, "malformed-request")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null"])
async def test_json_that_is_no_object_is_refused(shared_gateway: Gateway, body: bytes):
    """The whole body is the wrong field: its pointer is empty."""
    problem(await shared_gateway.post("/v1/orders", body), 422, "invalid-request", "")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_content_type_is_refused(shared_gateway: Gateway, headers):
    """Only JSON in UTF-8 is read."""
    answer = await shared_gateway.post("/v1/orders", b"{}", headers=headers)
    problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
async def test_json_may_say_that_it_is_utf8(shared_gateway: Gateway, content_type: str):
    """What many clients add is right."""
    answer = await shared_gateway.client.post(
        "/v1/inventory/tea-sencha/adjustments",
        content=b'{"warehouse":"east","delta":1,"reason":"found"}',
        headers={"Content-Type": content_type, "Idempotency-Key": "k"},
    )
    assert answer.status_code == 200, answer.text


def head(*more: str) -> bytes:
    """The head of a POST of an order."""
    rows = ["POST /v1/orders HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", "Idempotency-Key: k"]
    return "\r\n".join([*rows, "Content-Type: application/json", *more, "", ""]).encode()


async def test_a_body_that_says_it_is_too_large_is_refused(shared_gateway: Gateway):
    """The announced length is believed before anything is read."""
    answer = await shared_gateway.post("/v1/orders", b'{"customer_id": "' + b"a" * 262_144 + b'"}')
    problem(answer, 413, "body-too-large")


async def test_a_body_that_turns_out_too_large_is_refused(shared_gateway: Gateway):
    """A chunked body announces no length; it is counted."""

    async def parts():
        for _ in range(80):
            yield b"a" * 8_192

    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    answer = await shared_gateway.client.post("/v1/orders", content=parts(), headers=headers)
    problem(answer, 413, "body-too-large")


async def test_the_largest_body_is_read(shared_gateway: Gateway):
    """256 KiB exactly are allowed (and this one is then refused for what it says)."""
    body = b'{"x": "' + b"a" * (262_144 - 9) + b'"}'
    assert len(body) == 262_144
    problem(await shared_gateway.post("/v1/orders", body), 422, "invalid-request")


async def test_an_endlessly_slow_body_is_given_up(shared_gateway: Gateway):
    """Ten seconds in all, however many bytes drip in, and the answer is a 408."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_gateway.port)
    started = time.monotonic()
    writer.write(head("Content-Length: 1000"))
    drip = asyncio.create_task(_drip(writer))
    try:
        async with asyncio.timeout(60):
            answer = await reader.readuntil(b"\r\n\r\n")
    finally:
        drip.cancel()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert 9 < time.monotonic() - started < 15


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    "given", [None, "", "   ", "x" * 256, "k\u00e9y".encode().decode("latin-1"), "tab\there"]
)
async def test_a_key_is_asked_for_and_looked_at(shared_gateway: Gateway, given):
    """1 to 255 printable ASCII characters, on every POST that moves money or goods."""
    rows = [] if given is None else [f"Idempotency-Key: {given}"]
    for path in ("/v1/orders", "/v1/orders/ord_0/cancel", "/v1/inventory/tea-sencha/adjustments"):
        start = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", "Content-Length: 2"]
        sent = "\r\n".join([*start, "Content-Type: application/json", *rows, "", "{}"]).encode("latin-1")
        answer = await raw(shared_gateway.port, sent)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        missing = given is None or not given.strip()
        assert (b"idempotency-key-missing" if missing else b"invalid-parameter") in answer


@pytest.mark.parametrize(
    "path",
    [
        "/v1/orders/ord_nonsense",
        "/v1/orders/a:b",
        "/v1/orders/*",
        "/v1/orders/O'Hara",
        "/v1/orders/%00",
        "/v1/orders/%ff%fe",
        "/v1/orders/..%2f..%2fetc",
        "/v1/orders/" + "a" * 5000,
        "/v1/orders/ord_0123456789abcdefghjkmnpqrs",
        "/v1/orders/a/events",
        "/v1/products/a:b",
        "/v1/products/%0d%0a",
        "/v1/products/nobody-has-this",
        "/v1/inventory/%27%20OR%201=1",
        "/v1/inventory/nobody-has-this",
        "/v1/nothing",
        "/problems/nothing",
    ],
)
async def test_what_is_not_there_is_not_found(shared_gateway: Gateway, path: str):
    """Whatever a path holds, nothing breaks."""
    problem(await shared_gateway.client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=0000000001000", "limit"),
        ("limit=1" + "9" * 5000, "limit"),
        ("limit=-1", "limit"),
        ("limit=1.0", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=b3JkZXJzOm5vbnNlbnNl", "cursor"),
        ("cursor=%00", "cursor"),
        ("status=shipped", "status"),
        ("customer_id=a*", "customer_id"),
        ("customer_id=%00", "customer_id"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("created_before=0001-01-01T00:00:00%2B14:00", "created_before"),
        ("custmer_id=a", "custmer_id"),
    ],
)
async def test_a_wrong_filter_is_refused(shared_gateway: Gateway, query: str, name: str):
    """A misspelt or impossible filter never silently lists everything."""
    answer = await shared_gateway.client.get(f"/v1/orders?{query}")
    problem(answer, 400, "invalid-parameter", f"/{name}")


@pytest.mark.parametrize("query", ["customer_id=%ff", "a=1&" * 60])
async def test_a_query_that_cannot_be_decoded_is_refused(shared_gateway: Gateway, query: str):
    """Broken UTF-8 and endless lists of parameters."""
    problem(await shared_gateway.client.get(f"/v1/orders?{query}"), 400, "malformed-request")


async def test_an_unknown_method_is_refused_with_the_known_ones(shared_gateway: Gateway):
    """405 with Allow, as RFC 9110 asks."""
    answer = await shared_gateway.client.request("DELETE", "/v1/orders")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    answer = await shared_gateway.client.request("BREW", "/v1/orders")
    problem(answer, 405, "method-not-allowed")


async def test_options_and_head_say_what_get_would(shared_gateway: Gateway):
    """OPTIONS lists the methods; HEAD answers as GET without a body."""
    answer = await shared_gateway.client.options("/v1/orders")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    answer = await shared_gateway.client.head("/v1/products/tea-sencha")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0
    assert (await shared_gateway.client.head("/v1/orders/ord_nonsense")).status_code == 404
    assert (await shared_gateway.client.head("/v1/carrier-events")).status_code == 405


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"name": "x", "price": {"amount": 1.0, "currency": "USD"}}, ["/price/amount"]),
        ({"name": "x", "price": {"amount": -1, "currency": "USD"}}, ["/price/amount"]),
        ({"name": "x", "price": {"amount": 100_000_000, "currency": "USD"}}, ["/price/amount"]),
        ({"name": "", "price": {"amount": 1, "currency": "USD"}}, ["/name"]),
        ({"name": "x\n", "price": {"amount": 1, "currency": "USD"}}, ["/name"]),
        ({"name": "x", "price": 5}, ["/price"]),
        ({"name": "x"}, ["/price"]),
        ({"name": "x", "price": {"amount": 1, "currency": "USD"}, "sku": "another"}, ["/sku"]),
    ],
)
async def test_a_wrong_product_is_refused(shared_gateway: Gateway, body, pointers):
    """As with orders, every wrong field is named."""
    problem(await shared_gateway.client.put("/v1/products/new", json=body), 422, "invalid-request", *pointers)


@pytest.mark.parametrize("sku", ["ord_x", "a:b", "x" * 65, "%0d%0a", "-x"])
async def test_a_product_needs_a_proper_sku(shared_gateway: Gateway, sku: str):
    """SKUs are safe in keys, paths and logs, and never look like an order."""
    body = {"name": "x", "price": {"amount": 1, "currency": "USD"}}
    problem(await shared_gateway.client.put(f"/v1/products/{sku}", json=body), 422, "invalid-request", "/sku")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"warehouse": "east", "delta": 0, "reason": "x"}, ["/delta"]),
        ({"warehouse": "east", "delta": 1.5, "reason": "x"}, ["/delta"]),
        ({"warehouse": "east", "delta": 2**70, "reason": "x"}, ["/delta"]),
        ({"warehouse": "east", "delta": True, "reason": "x"}, ["/delta"]),
        ({"warehouse": "e st", "delta": 1, "reason": "x"}, ["/warehouse"]),
        ({"warehouse": "east", "delta": 1, "reason": ""}, ["/reason"]),
        ({"warehouse": "east", "delta": 1}, ["/reason"]),
    ],
)
async def test_a_wrong_adjustment_is_refused(shared_gateway: Gateway, body, pointers):
    """As with orders, every wrong field is named."""
    answer = await shared_gateway.post("/v1/inventory/tea-sencha/adjustments", body)
    problem(answer, 422, "invalid-request", *pointers)
