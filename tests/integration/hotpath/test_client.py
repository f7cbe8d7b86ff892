"""A client when all is well: one write a tick, answers as RESP3 says them, every way to a server."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.dev.servers import EmbeddedValkey
from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, NotSent
from app.hotpath.pipeline import WAVES_MIN
from app.hotpath.scripts import Script
from tests.busy import BUSY_S
from tests.integration.hotpath.callers import ended, opened, until, works
from tests.proxy import FaultProxy
from tests.servers import redis_in

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize(("commands", "writes"), [(WAVES_MIN - 1, 1), (WAVES_MIN, 2), (500, 2)])
async def test_what_is_issued_in_one_tick_leaves_in_one_write(
    fault_proxy: FaultProxy, commands: int, writes: int
):
    """Whoever issues it, or in two, when there is so much that server and client can work at the same time.

    The answers come in the order of the questions.
    """
    chunks: list[bytes] = []

    def look(chunk: bytes) -> bytes:
        chunks.append(chunk)
        return chunk

    async def ask(client: Client, n: int) -> bytes:
        return await client.execute("ECHO", n)

    async with opened(fault_proxy.url) as client:
        fault_proxy.to_server.rewrite = look
        before = client.statistics.batches
        answers = await asyncio.gather(*(ask(client, n) for n in range(commands)))
        assert answers == [b"%d" % n for n in range(commands)]
        assert client.statistics.batches == before + writes
        assert 1 <= len(chunks) <= writes
        assert chunks[0].startswith(b"*2\r\n$4\r\nECHO\r\n$1\r\n0\r\n*2\r\n")
        assert client.statistics.commands >= commands <= client.statistics.replies


async def test_answers_of_one_chunk_lead_to_one_write(redis_url: str):
    """64 tasks in a loop move in step: batches stay large by themselves."""

    async def loop(client: Client) -> None:
        for _ in range(50):
            await client.execute("GET", "k")

    async with opened(redis_url) as client:
        await asyncio.gather(*(loop(client) for _ in range(64)))
        assert client.statistics.commands == 64 * 50 + 1  # HELLO
        assert client.statistics.batches < 64 * 50 / 20


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("'text'", b"text"),
        ("''", b""),
        ("'\\0\\r\\n\\255'", b"\0\r\n\xff"),
        ("-42", -42),
        ("9007199254740993", 9007199254740992),  # Lua's own limit
        ("false", False),
        ("{}", []),
        ("{1, 'a', {2, {}}}", [1, b"a", [2, []]]),
        ("{double = 1.5}", 1.5),
        ("{map = {a = 1}}", {b"a": 1}),
        ("{set = {a = true}}", [b"a"]),
        ("redis.status_reply('FINE')", b"FINE"),
    ],
)
async def test_answers_are_what_resp3_says(redis_url: str, expression: str, answer: Any):
    """Bytes stay bytes; maps are dicts; nothing is None."""
    async with opened(redis_url) as client:
        got = await client.execute("EVAL", f"redis.setresp(3) return {expression}", 0)
        assert got == answer
        assert type(got) is type(answer)


async def test_commands_answer_in_resp3(redis_url: str):
    """What it changes for everyday commands."""
    async with opened(redis_url) as client:
        await client.execute("HSET", "h", "a", 1, b"b", 2.5)
        assert await client.execute("HGETALL", "h") == {b"a": b"1", b"b": b"2.5"}
        await client.execute("ZADD", "z", 1.5, "one", "inf", "two")
        assert await client.execute("ZSCORE", "z", "one") == 1.5
        assert await client.execute("ZSCORE", "z", "two") == inf
        assert await client.execute("GET", "none") is None
        assert (await client.execute("CLIENT", "INFO")).startswith(b"id=")


async def test_pushes_go_their_own_way(redis_url: str):
    """What the server says unasked disturbs no reply, nor does a callback that fails."""
    pushes: list[Any] = []

    def hear(push: list[Any]) -> None:
        pushes.append(push)
        raise RuntimeError("a defect of the subscriber")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    tracking = lambda: [("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "p")]  # noqa: E731
    async with opened(redis_url, greeting=tracking, on_push=hear) as client:
        answers = await asyncio.gather(
            *(client.execute("SET", f"p{n % 10}", n) for n in range(50)),
            *(client.execute("ECHO", n) for n in range(50)),
        )
        assert answers == [b"OK"] * 50 + [b"%d" % n for n in range(50)]
        keys = {b"p%d" % n for n in range(10)}
        await until(lambda: {key for _, keys in pushes for key in keys} == keys, "the invalidations came")
        assert client.statistics.pushes == len(pushes) == len(told)
        assert client.statistics.connections == 1


@pytest.mark.parametrize(
    "parts",
    [
        ("SUBSCRIBE", "c"),
        ("subscribe", "c"),
        (b"PSUBSCRIBE", "c"),
        ("MULTI",),
        ("MONITOR",),
        ("SELECT", 1),
        ("HELLO", 2),
        ("CLIENT", "REPLY", "OFF"),
        ("client", b"reply", "SKIP"),
        (b"CLIENT", "Reply", "SKIP"),
    ],
)
async def test_commands_that_change_the_shared_connection_are_refused(redis_url: str, parts: Any):
    """Each would break it for everybody else."""
    async with opened(redis_url) as client:
        with pytest.raises(ValueError, match="everybody shares"):
            client.execute(*parts)
        assert await client.execute("CLIENT", "ID") > 0
        assert await client.execute("ECHO", "a") == b"a"


@pytest.mark.parametrize("parts", [(), ("GET", None), ("SET", "k", ["v"]), ("SET", "k", True)])
async def test_what_is_no_command_is_refused(redis_url: str, parts: Any):
    """At once, where the mistake is; the next command is not disturbed."""
    async with opened(redis_url) as client:
        with pytest.raises(TypeError):
            client.execute(*parts)
        assert await client.execute("ECHO", "a") == b"a"


async def test_the_name_is_seen_at_the_server(redis_url: str):
    """An operator sees whose connection it is."""
    async with opened(redis_url, name="holdfast-gateway:1") as client:
        assert b"name=holdfast-gateway:1 " in await client.execute("CLIENT", "INFO")
    for wrong in ("a b", "a\nb", "ä"):
        with pytest.raises(ValueError, match="no spaces"):
            Client(Address(), name=wrong)


async def test_the_database_is_chosen(redis_url: str):
    """By the URL, after each reconnect too."""
    async with opened(redis_url) as zero, opened(redis_url.removesuffix("/0") + "/3") as three:
        await three.execute("SET", "k", "three")
        await zero.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: three.statistics.connections == 2, "it connects again")
        assert await three.execute("GET", "k") == b"three"
        assert await zero.execute("GET", "k") is None
        await three.execute("FLUSHDB")


async def test_a_database_that_is_not_there(redis_url: str):
    """It says so, and goes on trying."""
    why: list[str] = []
    async with Client(Address.parse(redis_url, db=99), name="test") as client:
        client.when_down.append(why.append)
        await until(lambda: why, "it is told")
        assert "DB index is out of range" in why[0]


async def test_a_user_with_a_password(own_redis: EmbeddedValkey):
    """AUTH with an ACL user, and what that user may not do."""
    async with opened(own_redis.url) as admin:
        await admin.execute("ACL", "SETUSER", "app", "on", ">se/cr@et", "~app:*", "+@all", "-flushall")
        url = own_redis.url.replace("redis://", "redis://app:se%2Fcr%40et@")
        async with opened(url) as client:
            assert await client.execute("SET", "app:k", "v") == b"OK"
            assert await client.execute("ACL", "WHOAMI") == b"app"
            assert (await ended(client.execute("SET", "other:k", "v"))).code == "NOPERM"
            assert (await ended(client.execute("FLUSHALL"))).code == "NOPERM"


async def test_a_wrong_password_is_told_without_it_and_tried_again(own_redis: EmbeddedValkey):
    """Once the server knows it, all is well; no message has held it meanwhile."""
    secret = "hunter2hunter2"
    async with opened(own_redis.url) as admin:
        await admin.execute("ACL", "SETUSER", "app", "on", ">other", "~*", "+@all")
        why: list[str] = []
        url = own_redis.url.replace("redis://", f"redis://app:{secret}@")
        async with Client(Address.parse(url), name="test") as client:
            client.when_down.append(why.append)
            await until(lambda: why, "it is told")
            assert "WRONGPASS" in why[0]
            error = await ended(client.execute("GET", "k"))
            assert isinstance(error, NotSent)
            assert "WRONGPASS" in str(error)
            assert secret not in f"{why} {error!r} {client!r} {client._address!r} {client._address}"
            await admin.execute("ACL", "SETUSER", "app", f">{secret}")
            await until(lambda: works(client), "it is let in")


async def test_no_password_where_one_is_needed(own_redis: EmbeddedValkey):
    """It says so, and gets in when there is no need any more."""
    async with opened(own_redis.url) as admin:
        await admin.execute("CONFIG", "SET", "requirepass", "secret")
        why: list[str] = []
        async with Client(Address.parse(own_redis.url), name="test") as client:
            client.when_down.append(why.append)
            await until(lambda: why, "it is told")
            assert "NOAUTH" in why[0]
            async with opened(own_redis.url.replace("redis://", "redis://:secret@")) as default:
                assert await default.execute("ACL", "WHOAMI") == b"default"
            await admin.execute("CONFIG", "SET", "requirepass", "")
            await until(lambda: works(client), "it is let in")


async def test_a_password_that_is_taken_away(own_redis: EmbeddedValkey):
    """A user that is deleted loses the connection, and does not get in again."""
    async with opened(own_redis.url) as admin:
        await admin.execute("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
        async with opened(own_redis.url.replace("redis://", "redis://app:secret@")) as client:
            await admin.execute("ACL", "DELUSER", "app")
            await until(lambda: client._refusal is not None, "it is refused")
            assert "WRONGPASS" in str(await ended(client.execute("PING")))


async def test_a_server_that_does_not_know_hello_does_not_give_the_secret_away(fault_proxy: FaultProxy):
    """It repeats what it was sent, password and all; our message does not."""
    secret = "hunter2hunter2"
    fault_proxy.to_server.rewrite = lambda chunk: chunk.replace(b"$5\r\nHELLO", b"$5\r\nHOLLA")
    url = fault_proxy.url.replace("redis://", f"redis://app:{secret}@")
    why: list[str] = []
    async with Client(Address.parse(url), name="test") as client:
        client.when_down.append(why.append)
        await until(lambda: why, "it is told")
        assert "unknown command" in why[0]
        assert secret not in f"{why} {await ended(client.execute('PING'))!r}"


async def test_a_server_without_resp3(fault_proxy: FaultProxy):
    """It is named as what it is."""
    fault_proxy.to_client.rewrite = lambda chunk: b"+OK\r\n"
    why: list[str] = []
    async with Client(Address.parse(fault_proxy.url), name="test") as client:
        client.when_down.append(why.append)
        await until(lambda: why, "it is told")
        assert "does not speak RESP3" in why[0]


async def test_a_unix_socket(tmp_path: Path):
    """The same over a file."""
    path = tmp_path / "valkey.sock"
    server = redis_in(tmp_path / "redis", settings={"unixsocket": str(path)})
    await server.start()
    try:
        async with opened(f"unix://{path}?db=2") as client:
            assert await client.execute("SET", "k", "v") == b"OK"
            assert b" db=2 " in await client.execute("CLIENT", "INFO")
            async with opened(server.url.removesuffix("/0") + "/2") as other:
                assert await other.execute("GET", "k") == b"v"
    finally:
        await server.stop()


@pytest.fixture(scope="session")
def certificate() -> Path:
    """A folder with a CA and a server's certificate for `localhost`."""
    return Path(__file__).parents[1] / "providers" / "tls"


@asynccontextmanager
async def behind_tls(url: str, certificate: Path) -> AsyncIterator[str]:
    """A server's address behind TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    parts = urlsplit(url)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(carry(reader, back), carry(to, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"rediss://localhost:{port}/0"


async def test_tls(redis_url: str, certificate: Path):
    """Encrypted, and the server is who it says it is."""
    async with (
        behind_tls(redis_url, certificate) as url,
        opened(f"{url}?ssl_ca_certs={certificate / 'ca.pem'}") as client,
    ):
        large = b"x" * 3_000_000
        assert await client.execute("SET", "k", large) == b"OK"
        assert await client.execute("GET", "k") == large
        answers = await asyncio.gather(*(client.execute("ECHO", n) for n in range(500)))
        assert answers == [b"%d" % n for n in range(500)]
        await ended(client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"))
        assert await until(lambda: works(client), "it is back") < 2 + BUSY_S


@pytest.mark.parametrize(
    ("host", "options"), [("localhost", ""), ("127.0.0.1", "?ssl_ca_certs={}")], ids=["stranger", "name"]
)
async def test_tls_with_somebody_else(redis_url: str, certificate: Path, host: str, options: str):
    """A certificate of a stranger, or of another name, is refused, and the reason is told."""
    async with behind_tls(redis_url, certificate) as url:
        address = url.replace("localhost", host) + options.format(certificate / "ca.pem")
        why: list[str] = []
        async with Client(Address.parse(address), name="test") as client:
            client.when_down.append(why.append)
            await until(lambda: why, "it is told")
            assert "CERTIFICATE_VERIFY_FAILED" in why[0]


async def test_a_script_is_given_to_the_server_when_it_lacks_it(redis_url: str):
    """In the pipeline, whatever else is under way; then it is one round trip."""
    script = Script.of(b"return {KEYS[1], ARGV[1]}")
    async with opened(redis_url) as client:
        for _ in range(3):
            await client.execute("SCRIPT", "FLUSH")
            answers = await asyncio.gather(
                *(client.evaluate(script, [f"k{n}"], [n]) for n in range(50)),
                *(client.execute("ECHO", n) for n in range(50)),
            )
            assert answers[:50] == [[b"k%d" % n, b"%d" % n] for n in range(50)]
            assert answers[50:] == [b"%d" % n for n in range(50)]
        before = client.statistics.commands
        assert await client.evaluate(script, ["a"], ["b"]) == [b"a", b"b"]
        assert client.statistics.commands == before + 1
        failing = Script.of(b"return redis.error_reply('MINE is this error')")
        for _ in range(2):
            with pytest.raises(ErrorReply, match="MINE is this error"):
                await client.evaluate(failing)


async def test_a_script_ends_in_its_deadline_with_all_it_takes(fault_proxy: FaultProxy):
    """Sending it again begins no second deadline."""
    async with opened(fault_proxy.url) as client:
        fault_proxy.to_client.delay_s = 0.2
        started = asyncio.get_running_loop().time()
        error = await ended(client.evaluate(Script.of(b"return 1"), deadline_s=0.3))
        assert isinstance(error, Exception)
        assert asyncio.get_running_loop().time() - started < 0.3 + 0.4


async def test_statistics_count_what_happens(redis_url: str):
    """Operators see it as metrics."""
    async with opened(redis_url) as client:
        await asyncio.gather(*(client.execute("GET", "k") for _ in range(10)))
        await ended(client.execute("NONSENSE"))
        client.execute("GET", "k").cancel()
        issued = client.execute("BLPOP", "none", 0.05)
        await until(lambda: client._connection.sent, "it is sent")
        issued.cancel()
        await client.execute("PING")
        statistics = client.statistics
        assert (statistics.commands, statistics.replies, statistics.errors) == (14, 14, 1)
        assert (statistics.dropped, statistics.refused, statistics.connections) == (1, 0, 1)
        assert sum(statistics.round_trips) >= 3
        assert 0 < statistics.round_trips_s < 5
        assert client.in_flight == 0
