"""One process that uses a lock as hard as it can, until it is killed: `python -m …lock_worker URL TASKS`.

Under the lock it reads a counter, and writes what it read plus one together with its token in one step; so
two holders at once would write the same number twice.
"""

import asyncio
import sys
from contextlib import suppress

import uvloop

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import HotpathError
from app.hotpath.locks import Locks
from app.hotpath.subscriptions import Subscriptions

PREFIX = "hf:test:locks:"
WRITE = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('RPUSH', KEYS[2], ARGV[1] .. ':' .. ARGV[2])"


async def work(client: Client, locks: Locks) -> None:
    """One task, for ever."""
    while True:
        with suppress(HotpathError):
            async with locks.hold("n", lifetime_s=3, wait_s=10) as lease:
                value = int(await client.execute("GET", "counter") or 0)
                await asyncio.sleep(0)
                lease.check()
                await client.execute("EVAL", WRITE, 2, "counter", "log", value + 1, lease.token)


async def main(url: str, tasks: int) -> None:
    """All tasks of one process."""
    address = Address.parse(url)
    async with (
        Client(address, name="worker", deadline_s=0.5) as client,
        Subscriptions(address, name="worker-wakes") as subscriptions,
        Locks(client, subscriptions, prefix=PREFIX) as locks,
    ):
        assert await client.ready(60)
        print("ready", flush=True)
        await asyncio.gather(*(work(client, locks) for _ in range(tasks)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
