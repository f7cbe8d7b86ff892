"""Owns the stand-in for `redis-benchmark`: raw sockets, epoll, requests made beforehand, replies counted.

Guarantees: as many connections and as many commands in flight on each as asked; a batch is one write, in a
turn of the loop of its own, as the program makes it (without pipelining that decides its speed); replies are
counted by their length on the wire, which must be the same for all, and their first byte is looked at, so an
error is noticed. It runs in a child process (bench.child) and blocks it while it measures.
"""

import itertools
import random
import select
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

from app.hotpath.address import Address
from bench.child import Run
from bench.samples import BenchmarkFailed

BATCHES = 512
"""Different batches, so that keys vary as they do with the program."""
READ_BYTES = 1 << 16
ERROR = ord("-")
WAIT_S = 5.0


@asynccontextmanager
async def load(
    url: str, command: Sequence[str], reply_bytes: int, keys: int, pipeline: int, connections: int
) -> AsyncIterator[Run]:
    """Connections to the server and a run over them."""
    address = Address.parse(url)
    choose = random.Random(0).randrange
    batches = [b"".join(_packed(command, choose(keys)) for _ in range(pipeline)) for _ in range(BATCHES)]
    with ExitStack() as stack:
        sockets = [socket.create_connection((address.host, address.port)) for _ in range(connections)]
        for each in sockets:
            stack.callback(each.close)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def run(seconds: float) -> int:
            return _exchange(sockets, batches, reply_bytes * pipeline, seconds) * pipeline

        yield run


def _packed(command: Sequence[str], key: int) -> bytes:
    parts = [part.replace("__rand_int__", f"{key:012d}").encode() for part in command]
    head = b"*%d\r\n" % len(parts)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _exchange(
    sockets: Sequence[socket.socket], batches: Sequence[bytes], expected: int, seconds: float
) -> int:
    """Send batch after batch on every connection until the time is over; how many were answered."""
    following = itertools.cycle(batches).__next__
    buffer = bytearray(READ_BYTES)
    # Bound methods by descriptor: a look-up less for each of them, which at this speed is some per cent.
    receive = {each.fileno(): each.recv_into for each in sockets}
    send = {each.fileno(): each.send for each in sockets}
    missing = dict.fromkeys(receive, expected)
    end, done, under_way = time.perf_counter() + seconds, 0, len(sockets)
    with select.epoll() as poll:
        for number in receive:
            poll.register(number, select.EPOLLOUT)
        while under_way:
            ready = poll.poll(WAIT_S)
            if not ready:
                raise BenchmarkFailed(f"the server said nothing for {WAIT_S:g} s")
            going_on = time.perf_counter() < end
            for number, event in ready:
                if event == select.EPOLLOUT:
                    missing[number] = expected
                    send[number](following())
                    poll.unregister(number)
                    poll.register(number, select.EPOLLIN)
                    continue
                is_first = missing[number] == expected
                received = receive[number](buffer)
                missing[number] -= received
                if not received or missing[number] < 0 or (is_first and buffer[0] == ERROR):
                    raise BenchmarkFailed(f"the server answered {bytes(buffer[:200])!r}")
                if missing[number]:
                    continue
                done += 1
                poll.unregister(number)
                if going_on:
                    poll.register(number, select.EPOLLOUT)
                else:
                    under_way -= 1
    return done
