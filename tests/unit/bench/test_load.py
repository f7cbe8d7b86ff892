"""The load generator against a server of a few lines: it counts what happened, and nothing is forgotten."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench import load

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
QUICK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def ok(_: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer at once."""
    writer.write(QUICK)


@asynccontextmanager
async def served(answering: Answering) -> AsyncIterator[int]:
    """A server that has `answering` answer each GET; its port."""
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            while True:
                await answering(await reader.readuntil(b"\r\n\r\n"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_closed_loop_counts_every_answer() -> None:
    """Each connection sends its next request after the answer, for as long as asked."""
    seen = 0

    async def count(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.write(QUICK)

    async with served(count) as port:
        result = await load.run(load.Plan(port=port, requests=[load.get("/")], connections=4, seconds=0.2))
    assert result.expect(200).count(200) == seen == result.sent > 10
    assert seen - 4 <= result.answered <= seen
    assert result.seconds == pytest.approx(0.2, abs=0.02)
    assert len(result.sorted_ms()) == seen


async def test_a_closed_loop_ends_when_the_requests_do() -> None:
    """Without repetition every request is sent once, in order, and the rate is over the time they took."""
    paths = []

    async def note(head: bytes, writer: asyncio.StreamWriter) -> None:
        paths.append(head.split(b" ")[1])
        writer.write(QUICK)

    requests = [load.get(f"/{number}") for number in range(10)]
    async with served(note) as port:
        plan = load.Plan(port=port, requests=requests, connections=3, seconds=5, repeat=False)
        result = await load.run(plan)
    assert sorted(paths) == sorted(b"/%d" % number for number in range(10))
    assert result.answered == 10
    assert result.seconds < 1


async def test_answers_are_understood_however_they_come() -> None:
    """In one piece, byte by byte, with a body of nothing, and without a body at all."""

    async def various(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b" /slow " in head:
            for byte in ANSWER:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
        elif b" /same " in head:
            writer.write(b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    requests = [load.get(path) for path in ("/slow", "/same", "/none")]
    async with served(various) as port:
        plan = load.Plan(
            port=port, requests=requests, connections=1, repeat=False, keep=frozenset({0, 1}), seconds=5
        )
        result = await load.run(plan)
    assert result.statuses == {200: 1, 304: 1, 404: 1}
    assert result.kept[0].body == b"ok"
    assert result.kept[0].headers == [(b"content-length", b"2")]
    assert result.kept[1].body == b""
    assert 2 not in result.kept
    with pytest.raises(load.LoadError, match="404"):
        result.expect(200, 304)


async def test_an_open_loop_charges_a_stall_to_everybody_who_waited() -> None:
    """One answer that takes 0.2 s delays those that were due meanwhile; their latency counts from then."""
    number = 0

    async def stall_once(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        if number == 50:
            await asyncio.sleep(0.2)
        writer.write(QUICK)

    async with served(stall_once) as port:
        plan = load.Plan(port=port, requests=[load.get("/")], connections=1, seconds=0.5, rate=400)
        result = await load.run(plan)
    latencies = result.expect(200).sorted_ms()
    assert len(latencies) == 200
    waited = [ms for ms in latencies if ms > 20]
    assert len(waited) > 40, "about 80 were due during the stall, and most of them waited for long"
    assert result.latency_ms(0.5)[0] < 100
    assert result.latency_ms(1)[0] >= 190


async def test_what_is_never_answered_is_counted_and_the_run_ends() -> None:
    """A server that goes silent costs the bound, and no more than that."""

    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b" /silent " not in head:
            writer.write(QUICK)

    requests = [load.get("/"), load.get("/silent")]
    for rate in (None, 50.0):
        async with served(silent) as port:
            plan = load.Plan(port=port, requests=requests, connections=4, seconds=0.2, bound_s=0.2, rate=rate)
            began = time.perf_counter()
            result = await load.run(plan)
            assert time.perf_counter() - began < 1
        assert result.unanswered > 0
        assert result.lost == 0
        assert len(result.sorted_ms()) == result.sent
        assert result.latency_ms(1)[0] >= 200
        with pytest.raises(load.LoadError, match="unanswered"):
            result.expect(200)


async def test_connections_that_are_lost_are_counted_and_replaced() -> None:
    """A server that hangs up in the middle loses its callers one request each, and they come again."""
    number = 0

    async def hang_up_sometimes(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        if number % 10 == 0:
            writer.close()
            raise ConnectionError
        writer.write(QUICK)

    requests = [load.get("/")] * 50
    async with served(hang_up_sometimes) as port:
        plan = load.Plan(port=port, requests=requests, connections=2, repeat=False, seconds=5)
        result = await load.run(plan)
    assert result.sent == 50
    assert result.lost == 5
    assert result.count(200) == 45


async def test_what_is_not_an_answer_ends_the_run() -> None:
    """Bytes that nobody asked for, and answers whose end cannot be known, are errors."""
    for answer in (QUICK + b"more", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):

        async def wrong(_: bytes, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            writer.write(answer)

        async with served(wrong) as port:
            with pytest.raises(load.LoadError, match=r"nobody asked for|without Content-Length"):
                await load.run(load.Plan(port=port, requests=[load.get("/")], connections=1))


async def test_a_port_where_nobody_listens_is_an_error() -> None:
    """Nothing is measured against nobody."""
    async with served(ok) as port:
        pass
    with pytest.raises(load.LoadError, match="Nobody listens"):
        await load.run(load.Plan(port=port, requests=[load.get("/")]))


async def test_it_runs_in_a_process_of_its_own() -> None:
    """The plan goes there and the result comes back, also the error."""
    async with served(ok) as port:
        result = await load.run_apart(
            load.Plan(port=port, requests=[load.post("/", b"{}")], connections=1, seconds=5, repeat=False)
        )
        assert result.expect(200).sent == 1
        assert result.cpu_s > 0
        assert load.summary([result, result])["sent"] == 2
    with pytest.raises(load.LoadError, match="Nobody listens"):
        await load.run_apart(load.Plan(port=port, requests=[load.get("/")]))


async def test_a_great_result_comes_back_whole_though_nothing_is_buffered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than a pipe holds, from a process whose standard streams were asked not to buffer."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    body = b"x" * 100_000

    async def great(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with served(great) as port:
        plan = load.Plan(port=port, requests=[load.get("/")] * 200, repeat=False, keep=frozenset(range(200)))
        result = await load.run_apart(plan)
    assert [kept.body == body for kept in result.kept.values()] == [True] * 200
