"""The sample receiver takes what we send, once, and nothing else."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from app.contracts.event_examples import ENVELOPES
from app.domain.events import OrderAccepted
from app.domain.webhooks import Post, secret_of
from app.infra.webhooks.sender import HttpSender

SAMPLE = Path(__file__).parents[3] / "samples" / "webhook_receiver.py"
WAVES, AT_ONCE = 20, 4
"""Events that come at once, again and again: each has a line of its own."""


async def test_the_sample_receiver_takes_what_is_ours():
    """Signed by either secret; a repetition is not news; another signature is refused."""
    old, new = secret_of(os.urandom(32)), secret_of(os.urandom(32))
    event = ENVELOPES[OrderAccepted]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SAMPLE), "0"),
        env={**os.environ, "WEBHOOK_SECRET": old},
        stdout=asyncio.subprocess.PIPE,
    )
    sender = HttpSender(private_allowed=True)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            url = (await process.stdout.readline()).decode().split()[-1]
            for identity, secrets, status in (
                ("msg_1", (old,), 204),
                ("msg_1", (old,), 204),
                ("msg_2", (new, old), 204),
                ("msg_3", (new,), 401),
            ):
                post = Post(identity, "whe_1", url, msgspec.json.encode(event), secrets)
                assert (await sender.send(post)).status == status
            body = msgspec.json.encode(event)
            for wave in range(WAVES):
                at_once = [Post(f"wave_{wave}_{n}", "whe_1", url, body, (old,)) for n in range(AT_ONCE)]
                assert [sent.status for sent in await asyncio.gather(*map(sender.send, at_once))] == [
                    204
                ] * AT_ONCE
            printed = [(await process.stdout.readline()).decode().split() for _ in range(2 + WAVES * AT_ONCE)]
        assert printed == [[event.time, event.type, event.subject, str(event.sequence)]] * len(printed)
    finally:
        sender.close()
        process.kill()
        await process.wait()
