"""The gateway as a process: starting, stopping, dying, and what it costs while nobody asks."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.dev.seed import seed
from app.dev.stack.ports import any_free
from tests.busy import BUSY_S
from tests.integration.gateway.process import running, start
from tests.integration.gateway.served import KEY, NOBODY, raw

ORDER = {
    "customer_id": "cust-1",
    "currency": "USD",
    "lines": [{"sku": "tea-earl-grey", "quantity": 1}],
    "payment_method": "pm_card_visa",
}


async def test_it_starts_with_redis_dead_and_stops_when_told(database_url: str, tmp_path: Path):
    """Ready without Redis, one log line per request in JSON, exit 0 on SIGTERM."""
    await seed(database_url, KEY)
    async with running(any_free(), database_url, NOBODY, tmp_path, LOG_FORMAT="json") as gateway:
        for path in ("/livez", "/readyz", "/startupz"):
            assert (await gateway.client.get(path)).status_code == 200, path
        answer = await gateway.client.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 202
        assert await gateway.stop() == 0
        lines = [json.loads(line) for line in gateway.log.read_text("utf-8").splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [
        ("POST", "/v1/orders", 202)
    ]
    assert requests[0]["correlation_id"] == answer.json()["correlation_id"]
    assert requests[0]["request_id"] == answer.headers["x-request-id"]


async def test_started_before_postgres_it_says_so_and_says_when_it_is_there(
    database_url: str, tmp_path: Path
):
    """One line each, however often it was asked; it lives and answers meanwhile."""
    port = any_free()
    there = urlsplit(database_url)
    elsewhere = there._replace(netloc=f"{there.netloc.rpartition(':')[0]}:{port}").geturl()
    async with running(any_free(), elsewhere, NOBODY, tmp_path, LOG_FORMAT="json") as gateway:

        def said(event: str) -> list[dict[str, str]]:
            lines = map(json.loads, gateway.log.read_text("utf-8").splitlines())
            return [line for line in lines if line["event"] == event]

        await until(lambda: said("postgres_is_away"))
        assert (await gateway.client.get("/livez")).status_code == 200
        assert (await gateway.client.get("/readyz")).status_code == 503
        async with forwarding(port, there.hostname, there.port):
            await until(lambda: said("postgres_is_back"))
            assert (await gateway.client.get("/readyz")).status_code == 200
            assert await gateway.stop() == 0
        assert [line["level"] for line in said("postgres_is_away")] == ["warning"]
        assert [line["level"] for line in said("postgres_is_back")] == ["info"]


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def forwarding(port: int, host: str | None, to: int | None) -> AsyncIterator[None]:
    """Let a server be reached at another port, inside the block."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, to)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_sigterm_finishes_what_is_held_and_takes_nothing_new(database_url: str, tmp_path: Path):
    """A body that is still coming is read and answered; new connections are refused soon."""
    await seed(database_url, KEY)
    async with running(any_free(), database_url, NOBODY, tmp_path) as gateway:
        body = json.dumps(ORDER).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        rows = ["POST /v1/orders HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", "Idempotency-Key: k"]
        rows += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(rows).encode() + body[:10])
        await writer.drain()
        waiting = asyncio.create_task(
            gateway.client.post(
                "/v1/orders", json=ORDER, headers={"Idempotency-Key": "w", "Prefer": "wait=30"}
            )
        )
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        while "POST" not in gateway.log.read_text("utf-8") and not await _accepted(database_url):
            await asyncio.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        while True:
            try:
                _, probe = await asyncio.open_connection("127.0.0.1", gateway.port)
            except OSError:
                break
            probe.close()
            assert time.monotonic() - told < 10 + BUSY_S
            await asyncio.sleep(0.01)
        assert (await waiting).status_code == 202
        writer.write(body[10:])
        async with asyncio.timeout(60):
            assert (await reader.readline()).startswith(b"HTTP/1.1 202")
            assert await gateway.process.wait() == 0
        assert await idle.read() == b""
        writer.close()
        idle_writer.close()


async def _accepted(database_url: str) -> int:
    import asyncpg

    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval("SELECT count(*) FROM orders")
    finally:
        await connection.close()


async def test_what_does_not_end_is_given_up_after_the_timeout(database_url: str, tmp_path: Path):
    """A body that never comes cannot hold the process: SHUTDOWN_TIMEOUT_S is the end."""
    await seed(database_url, KEY)
    async with running(any_free(), database_url, NOBODY, tmp_path, SHUTDOWN_TIMEOUT_S="1") as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        rows = ["POST /v1/carrier-events HTTP/1.1", "Host: x", "Content-Length: 100", "", "abc"]
        writer.write("\r\n".join(rows).encode())
        await writer.drain()
        await gateway.client.get("/livez")
        started = time.monotonic()
        assert await gateway.stop() == 0
        assert time.monotonic() - started < 5 + BUSY_S
        writer.close()


async def test_a_port_that_is_taken_is_one_clear_line(database_url: str, tmp_path: Path):
    """Exit 1, whoever holds it, even another gateway (which would share it otherwise)."""
    taken = socket.socket()
    taken.bind(("0.0.0.0", 0))
    taken.listen()
    log = tmp_path / "log"
    process = await start(taken.getsockname()[1], database_url, NOBODY, log)
    assert await process.wait() == 1
    assert len(log.read_text("utf-8").splitlines()) == 1
    assert "PORT" in log.read_text("utf-8")
    taken.close()
    async with running(any_free(), database_url, NOBODY, tmp_path) as gateway:
        assert await (await start(gateway.port, database_url, NOBODY, log)).wait() == 1
        assert (await gateway.client.get("/livez")).status_code == 200


async def test_killed_it_loses_nothing_that_it_answered(database_url: str, tmp_path: Path):
    """After kill -9 in the middle every answered order is there, and a repetition gives the same answer."""
    await seed(database_url, KEY)
    port = any_free()
    answered: dict[str, bytes] = {}
    async with running(port, database_url, NOBODY, tmp_path) as gateway:

        async def order(number: int) -> None:
            key = f"k-{number}"
            answer = await gateway.client.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": key})
            answered[key] = answer.content

        placing = [asyncio.create_task(order(number)) for number in range(300)]
        while len(answered) < 100:
            await asyncio.sleep(0.005)
        gateway.process.kill()
        await asyncio.gather(*placing, return_exceptions=True)
    assert len(answered) < 300
    async with running(port, database_url, NOBODY, tmp_path) as gateway:
        for number in range(300):
            key = f"k-{number}"
            answer = await gateway.client.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": key})
            assert answer.status_code == 202
            if key in answered:
                assert answer.content == answered[key]
                assert answer.headers["idempotent-replayed"] == "true"
    assert await _accepted(database_url) == 300


async def test_idle_it_is_small_and_still(database_url: str, redis_url: str, tmp_path: Path):
    """Under 150 MB, and next to no processor time."""
    async with running(any_free(), database_url, redis_url, tmp_path) as gateway:
        await gateway.client.get("/readyz")
        before = gateway.cpu_s
        await asyncio.sleep(2)
        assert gateway.cpu_s - before <= 0.04
        assert gateway.resident_mb < 150


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"]
)
async def test_what_is_not_http_disturbs_nobody(database_url: str, tmp_path: Path, sent: bytes):
    """A connection that speaks something else is closed or told so."""
    async with running(any_free(), database_url, NOBODY, tmp_path) as gateway:
        try:
            answer = await raw(gateway.port, sent, timeout_s=5)
        except (asyncio.IncompleteReadError, ConnectionError):
            answer = b""
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
        assert (await gateway.client.get("/livez")).status_code == 200
