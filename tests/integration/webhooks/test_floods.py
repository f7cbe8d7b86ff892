"""Receivers that say more than anybody should: orders are worked on in the same loop, and get their turns.

What it costs the loop is counted in steps of the protocol's parser, not in seconds: these are the same on a
busy machine.
"""

import asyncio

import pytest

from app.domain.webhooks import Post, secret_of
from app.infra.webhooks.sender import HttpSender
from tests.integration.floods import counted, flooding

AT_ONCE = 8
"""As many deliveries as an endpoint has places."""
STEPS_MAX = 150
"""Of one delivery."""
LARGE_HINT = b"HTTP/1.1 103 \r\nlink: " + b"x" * 9000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "again", "status", "said"),
    [
        (b"", b"HTTP/1.1 100 \r\n\r\n", None, "more than 8 hints (1xx) came before the answer"),
        (b"", LARGE_HINT, None, "the head of the answer is too large"),
        (b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 200, None),
        (b"HTTP/1.1 500 \r\n\r\n", b"x", 500, "the receiver answered 500"),
    ],
    ids=["hints", "large hints", "tiny chunks", "a body without end"],
)
async def test_a_flood_is_left_and_others_get_their_turns(
    monkeypatch: pytest.MonkeyPatch, first: bytes, again: bytes, status: int | None, said: str | None
):
    """Eight at once end by themselves, each after a few steps, and only those are between two turns."""
    sender = HttpSender(private_allowed=True, timeout_s=30.0)
    async with flooding(first, again) as origin, counted(monkeypatch) as steps:
        post = Post("msg_1", "whe_1", f"{origin}/", b"{}", (secret_of(bytes(32)),))
        receipts = await asyncio.gather(*(sender.send(post) for _ in range(AT_ONCE)))
    sender.close()
    assert steps.taken <= AT_ONCE * STEPS_MAX
    assert steps.in_a_turn_most <= AT_ONCE * STEPS_MAX
    assert {(receipt.status, receipt.error) for receipt in receipts} == {(status, said)}
