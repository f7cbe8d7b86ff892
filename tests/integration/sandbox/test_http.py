"""The sandbox's own HTTP server: what it does with what is not a good request."""

import asyncio

import httpx
import pytest


async def exchange(url, data: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n", b"431"),
        (b"POST /v1/refunds HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"a" * 300_000, b"413"),
    ],
)
async def test_a_malformed_or_oversized_request_gets_a_4xx(url, data, status):
    """And the connection is closed."""
    answer = await exchange(url, data)
    assert answer.split(b" ", 2)[1] == status


async def test_pipelined_and_split_requests_are_answered_in_order(url):
    """Two requests in one write, the second one with a chunked body in pieces."""
    first = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    second = (
        b"PUT /v1/shipments/ful_1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b'1f\r\n{"warehouse":"w","lines":[{"sku\r\n13\r\n":"a","quantity":1}\r\n2\r\n]}\r\n0\r\n\r\n'
    )
    answer = await exchange(url, first + second)
    assert answer.index(b'{"status":"ok"}') < answer.index(b'"reference":"ful_1"')
    assert answer.count(b"HTTP/1.1 20") == 2


async def test_a_body_that_is_announced_is_invited(url):
    """Expect: 100-continue, as curl sends it with a large body."""
    body = b'{"warehouse":"w","lines":[{"sku":"a","quantity":1}]}'
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"PUT /v1/shipments/ful_2 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(body)
        assert b"HTTP/1.1 201" in await reader.read()
    writer.close()


async def test_unknown_routes_are_404(http):
    """In the words of whoever was meant."""
    for path in ("/", "/v1/payment_intents/a/b/c", "/v1/shipments/a/fly", "/control/x"):
        assert (await http.get(path)).status_code == 404
    assert (await http.get("/livez")).json() == {"status": "ok"}


async def test_a_client_that_leaves_does_not_stop_the_work(sandbox, http):
    """The request was complete: it is done, and the server goes on."""
    body = b"amount=100&currency=usd"
    host, _, port = sandbox.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/payment_intents HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk_test_x\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    writer.close()
    async with asyncio.timeout(60):
        while not (await http.get("/v1/payment_intents")).json()["data"]:
            await asyncio.sleep(0.01)


async def test_it_rests_when_nobody_asks(sandbox):
    """No timer runs while nothing is due: hardly any processor time in a second, and little memory."""
    import psutil

    process = psutil.Process(sandbox.pid)
    async with httpx.AsyncClient(base_url=sandbox.url) as http:
        await http.get("/livez")
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(1.0)  # the second of quiet that is measured, not a wait for something
    assert sum(process.cpu_times()[:2]) - before <= 0.05
    assert process.memory_info().rss < 70 * 1024 * 1024
