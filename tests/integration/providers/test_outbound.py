"""The connections to the providers: each call gets its own answer or none, never another's."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from app.infra.outbound import CallFailed, Outbound
from tests.integration.floods import counted, flooding

TLS = Path(__file__).parent / "tls"  # a certificate for localhost and its authority; used by nobody else
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """One request: its target and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next((int(line.split(":")[1]) for line in head.splitlines() if "content-length" in line), 0)
    return head.split(" ")[1], await reader.readexactly(length)


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with its length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Server:
    """Runs a script on each connection."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0
        self._servers: list[asyncio.Server] = []

    async def run(self, script: Script, tls: ssl.SSLContext | None = None) -> str:
        """Listen; the origin."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            try:
                await script(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        return f"http{'s' if tls else ''}://localhost:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that does what a script says."""
    running = Server()
    yield running
    running.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its target and body, on one connection."""
    while True:
        target, body = await read_request(reader)
        writer.write(answer(target.encode() + b" " + body))


async def test_connections_are_kept_and_their_number_is_bounded(server):
    """One caller needs one connection; many callers share what is allowed."""
    outbound = Outbound(await server.run(echo), connections_max=3)
    for number in range(5):
        assert (await outbound.call("POST", f"/{number}", (), b"x")).body == f"/{number} x".encode()
    assert server.connections == 1
    answers = await asyncio.gather(*(outbound.call("GET", f"/{number}") for number in range(50)))
    assert [one.body for one in answers] == [f"/{number} ".encode() for number in range(50)]
    assert server.connections == 3
    await outbound.aclose()


async def test_a_cancelled_call_leaves_no_answer_behind_for_another(server):
    """The connection of a call that was given up is closed, and never used again."""
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def slow_first(reader, writer):
        target, _ = await read_request(reader)
        if target == "/slow":
            arrived.set()
            assert await reader.read() == b""
            ended.set()
        writer.write(answer(target.encode()))
        await echo(reader, writer)

    outbound = Outbound(await server.run(slow_first), connections_max=1)
    given_up = asyncio.create_task(outbound.call("GET", "/slow"))
    await arrived.wait()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await ended.wait()
    for number in range(5):
        assert (await outbound.call("GET", f"/{number}")).body.startswith(f"/{number}".encode())
    assert server.connections == 2
    await outbound.aclose()


async def test_a_late_answer_is_nobodys(server):
    """The same after a deadline: the call fails, the next one has a connection of its own."""
    go_on = asyncio.Event()

    async def slow_first(reader, writer):
        target, _ = await read_request(reader)
        if target == "/slow":
            await go_on.wait()
        writer.write(answer(target.encode()))
        await echo(reader, writer)

    outbound = Outbound(await server.run(slow_first), call_timeout_s=0.1)
    with pytest.raises(CallFailed) as caught:
        await outbound.call("GET", "/slow")
    assert caught.value.connected
    go_on.set()
    assert (await outbound.call("GET", "/next")).body == b"/next"
    await outbound.aclose()


@pytest.mark.parametrize("closes", [True, False])
async def test_what_a_server_says_unasked_is_not_the_next_answer(server, closes):
    """A notice of timeout on an idle connection, as many servers send it before they close."""
    idle = asyncio.Event()

    async def gives_notice(reader, writer):
        target, _ = await read_request(reader)
        writer.write(answer(target.encode()))
        await writer.drain()
        if server.connections == 1:
            await idle.wait()
            writer.write(answer(b"bye", status=b"408 Request Timeout"))
            if closes:
                return
        await echo(reader, writer)

    outbound = Outbound(await server.run(gives_notice))
    assert (await outbound.call("GET", "/1")).body == b"/1"
    (kept,) = outbound._idle
    idle.set()
    while kept.open:  # until the notice has arrived here
        await asyncio.sleep(0)
    assert (await outbound.call("GET", "/2")).body == b"/2"
    assert server.connections == 2
    await outbound.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n" + b"a" * 5_000_000,
        b"HTTP/1.1 200 OK\r\nlong: " + b"a" * 70_000,
    ],
    ids=["nothing", "half a head", "half a body", "nonsense", "too large", "a head without end"],
)
async def test_an_incomplete_or_foolish_answer_is_none(server, reply):
    """The call fails, and says that the provider may have got it."""

    async def script(reader, writer):
        await read_request(reader)
        writer.write(reply)
        await writer.drain()

    outbound = Outbound(await server.run(script))
    with pytest.raises(CallFailed) as caught:
        await outbound.call("POST", "/", (), b"x")
    assert caught.value.connected
    await outbound.aclose()


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"HTTP/1.1 100 \r\n\r\n"),
        (b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["hints", "tiny chunks"],
)
async def test_a_flood_is_left_and_others_get_their_turns(monkeypatch, first, again):
    """Eight calls fail by themselves, each after a few steps of the parser: others have the loop."""
    async with flooding(first, again) as origin, counted(monkeypatch) as steps:
        outbound = Outbound(origin, call_timeout_s=30.0)
        failed = await asyncio.gather(*(outbound.call("GET", "/") for _ in range(8)), return_exceptions=True)
    assert {(type(error), "pieces" in str(error)) for error in failed} == {(CallFailed, True)}
    assert steps.taken <= 8 * 400
    await outbound.aclose()


async def test_a_large_answer_in_small_pieces_is_one(server):
    """As a slow line brings it: what is bounded are pieces out of all proportion."""

    async def script(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 103 \r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write((b"400\r\n" + b"a" * 1024 + b"\r\n") * 2048 + b"0\r\n\r\n")
        await writer.drain()

    outbound = Outbound(await server.run(script))
    assert len((await outbound.call("GET", "/")).body) == 2 * 1024 * 1024
    await outbound.aclose()


async def test_every_way_to_frame_an_answer_is_understood(server):
    """In chunks, until the connection closes, without a body, after a provisional answer."""
    replies = {
        "/chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "/until-close": b"HTTP/1.1 200 OK\r\n\r\nabcde",
        "/empty": b"HTTP/1.1 204 No Content\r\n\r\n",
        "/provisional": b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(b"abcde", b"X-A: 1"),
    }

    async def script(reader, writer):
        while True:
            target, _ = await read_request(reader)
            for byte in replies[target]:
                writer.write(bytes([byte]))
                await writer.drain()
            if target == "/until-close":
                return

    outbound = Outbound(await server.run(script))
    for target in replies:
        got = await outbound.call("GET", target)
        assert got.body == (b"" if target == "/empty" else b"abcde")
    assert got.headers["x-a"] == "1"
    await outbound.aclose()


async def test_nothing_listens(server):
    """Then surely nothing was received, and the failure says so."""
    origin = await server.run(echo)
    server.close()
    with pytest.raises(CallFailed) as caught:
        await Outbound(origin).call("GET", "/")
    assert not caught.value.connected


async def test_tls_is_verified(server):
    """A certificate of an unknown authority, or of another name, is refused before anything is sent."""
    identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    origin = await server.run(echo, identity)
    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    outbound = Outbound(origin, tls=trusting)
    for number in range(3):
        assert (await outbound.call("GET", f"/{number}")).body == f"/{number} ".encode()
    assert server.connections == 1
    await outbound.aclose()
    for stranger in (Outbound(origin), Outbound(origin.replace("localhost", "127.0.0.1"), tls=trusting)):
        with pytest.raises(CallFailed, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await stranger.call("GET", "/")
        assert not caught.value.connected


@pytest.mark.parametrize("url", ["localhost", "ftp://a/", "http://", "http://a/?b=c"])
def test_only_origins_are_taken(url):
    """Anything else is a mistake in the settings."""
    with pytest.raises(ValueError, match="must be"):
        Outbound(url)
