"""One attempt: signed, bounded, and never where it must not go."""

import asyncio
import json
import ssl
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from app.domain.webhooks import Post, secret_of
from app.infra.webhooks import sender as module
from app.infra.webhooks.sender import HttpSender
from tests.integration.webhooks.receiver import Receiver

SECRET = secret_of(bytes(32))
TLS = Path(__file__).parents[1] / "providers" / "tls"


def post(url: str, body: bytes = b'{"id":"ord_1:1"}') -> Post:
    """Something to be sent."""
    return Post("msg_1", "whe_1", url, body, (SECRET,))


@pytest.fixture
def sender():
    """One that may go to this host, and is impatient."""
    sender = HttpSender(private_allowed=True, timeout_s=2.0)
    yield sender
    sender.close()


async def serve(answer: bytes, *, close: bool = True) -> asyncio.Server:
    """A server that answers any bytes with these, and then closes, or says no more."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        if not close:
            await reader.read()
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


def url_of(server: asyncio.Server) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_what_is_sent_is_as_standard_webhooks_say(sender: HttpSender, receiver: Receiver):
    """The official verifier has no objection, and the receiver is told what it was asked."""
    receipt = await sender.send(post(receiver.url, b'{"id":"ord_1:1"}'))
    assert (receipt.status, receipt.error, receipt.is_good) == (204, None, True)
    (got,) = receiver.got
    assert (got.method, got.target) == ("POST", "/hooks?shop=1")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.id == "msg_1"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert got.verified(SECRET) == json.loads(got.body) == {"id": "ord_1:1"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(
    sender: HttpSender, receiver: Receiver, status: int
):
    """Whoever may answer could else send us anywhere."""
    receiver.status, receiver.headers = status, {"location": receiver.url}
    receipt = await sender.send(post(receiver.url))
    assert (receipt.status, receipt.is_good) == (status, False)
    assert "redirect" in (receipt.error or "")
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ("7", 7, 7),
        ("99999999999999999999", 86400, 86400),
        ("-5", 0, 0),
        ("soon", 0, 0),
        (1000, 900, 1001),
        (-1000, 0, 0),
        (1e7, 86400, 86400),
    ],
)
async def test_retry_after_is_heard_within_bounds(
    sender: HttpSender, receiver: Receiver, given: str | float, least: float, most: float
):
    """Seconds, or a date (so far from now); a day at most."""
    text = given if isinstance(given, str) else formatdate(time.time() + given, usegmt=True)
    receiver.status, receiver.headers = 503, {"retry-after": text}
    receipt = await sender.send(post(receiver.url))
    assert receipt.status == 503
    assert least <= receipt.retry_after_s <= most


async def test_nobody_there_is_an_error(sender: HttpSender, receiver: Receiver):
    """It is said, not raised."""
    await receiver.down()
    receipt = await sender.send(post(receiver.url))
    assert (receipt.status, receipt.error) == (None, "connection refused")
    assert "name" in ((await sender.send(post("http://nobody.invalid/"))).error or "")


CLOSED = "the connection was closed before an answer came"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", CLOSED),
        (b"HTTP/1.1 100 Continue\r\n\r\n", CLOSED),
        (b"nonsense\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 204 No", CLOSED),
        (b"HTTP/1.1 200 OK\r\na: " + b"x" * 99_999, "the head of the answer is too large"),
    ],
    ids=["silence", "only a hint", "nonsense", "half a head", "an endless head"],
)
async def test_an_answer_that_is_none_is_an_error(sender: HttpSender, answer: bytes, said: str):
    """Closed, not HTTP, or too large; said in words, without names out of our program."""
    async with await serve(answer) as server:
        receipt = await sender.send(post(url_of(server)))
        assert (receipt.status, receipt.error) == (None, said)


async def test_a_receiver_that_speaks_no_tls_is_told_so(sender: HttpSender):
    """Where the URL says https."""
    async with await serve(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        receipt = await sender.send(post(url_of(server).replace("http:", "https:")))
        assert (receipt.error or "").startswith("TLS failed: ")


async def test_a_receiver_that_takes_no_connection_times_out(monkeypatch: pytest.MonkeyPatch):
    """One that speaks TLS with nobody: not all of the time is spent on one address."""
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.2)
    sender = HttpSender(private_allowed=True, timeout_s=30.0)
    async with await serve(b"", close=False) as server:
        receipt = await sender.send(post(url_of(server).replace("http:", "https:")))
        assert receipt.error == "timed out after 0.2 s while connecting"
    sender.close()


async def test_all_of_an_attempt_takes_no_longer_than_it_may():
    """A receiver that accepts and says nothing costs the timeout, and no more."""
    sender = HttpSender(private_allowed=True, timeout_s=0.3)
    async with await serve(b"HTTP/1.1 100 Continue\r\n\r\n", close=False) as server:
        began = time.monotonic()
        receipt = await sender.send(post(url_of(server)))
        assert receipt.error == "timed out after 0.3 s without an answer"
        assert time.monotonic() - began < 5
    sender.close()


async def test_an_endless_body_is_not_listened_to(sender: HttpSender, monkeypatch: pytest.MonkeyPatch):
    """The status is what counts; a little of the rest is heard, for a moment."""
    monkeypatch.setattr(module, "REST_TIMEOUT_S", 0.2)
    heard = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                heard += 4096
                await writer.drain()
        except OSError:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        receipt = await sender.send(post(url_of(server)))
        assert receipt.is_good
    assert heard < 100_000_000


async def test_an_answer_that_comes_before_everything_was_read_is_heard(sender: HttpSender):
    """A receiver that refuses a large body need not read it first."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, limit=1024) as server:
        receipt = await sender.send(post(url_of(server), b"x" * 4_000_000))
        assert receipt.status == 413


async def test_outside_development_nothing_goes_to_this_host(receiver: Receiver):
    """By address, by name, or by a name that says one thing and then another."""
    answers = iter([["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    port = receiver.port
    sender = HttpSender(private_allowed=False, timeout_s=2.0)
    for url in (receiver.url, f"https://127.0.0.1:{port}/", f"https://localhost:{port}/"):
        receipt = await sender.send(post(url))
        assert receipt.status is None, url
        assert receipt.error
    sender.close()
    sender = HttpSender(private_allowed=False, timeout_s=2.0, resolve=resolve)
    for _ in range(2):
        receipt = await sender.send(post(f"https://hooks.example.com:{port}/"))
        assert "public internet" in (receipt.error or "")
    sender.close()
    assert receiver.got == []


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(receiver: Receiver):
    """The name is resolved once; nobody asks again in between."""
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    sender = HttpSender(private_allowed=True, resolve=resolve)
    receipt = await sender.send(post(f"http://nowhere.invalid:{receiver.port}/"))
    assert receipt.is_good
    assert asked == [("nowhere.invalid", receiver.port)]
    assert receiver.got[0].headers["host"] == f"nowhere.invalid:{receiver.port}"
    sender.close()


async def test_a_certificate_has_to_be_of_the_name_in_the_url():
    """We connect to an address, but it is the name that is checked."""
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_tls) as server:
        port = server.sockets[0].getsockname()[1]
        sender = HttpSender(private_allowed=True, resolve=resolve, tls=trusting)
        assert (await sender.send(post(f"https://localhost:{port}/"))).is_good
        wrong = await sender.send(post(f"https://example.com:{port}/"))
        assert wrong.error == "TLS failed: Hostname mismatch, certificate is not valid for 'example.com'"
        sender.close()
        sender = HttpSender(private_allowed=True, resolve=resolve)
        unknown = await sender.send(post(f"https://localhost:{port}/"))
        assert unknown.error == "TLS failed: unable to get local issuer certificate"
        sender.close()
