"""`holdfast replay`: asks, looks on, says what came of it; a worker does the work."""

import asyncio
import json
import signal
import sys
from contextlib import suppress

import pytest

from app.__main__ import COMMANDS, _load
from tests.integration.replay.past import Past


@pytest.fixture
async def worker(past: Past):
    """Carries on whatever there is, as workers do."""

    async def work() -> None:
        while True:
            for state in ("waiting", "checking"):
                for replay in await past.replays.page(None, 10, state=state):
                    await past.carry(replay.id)
            await asyncio.sleep(0.02)

    working = asyncio.create_task(work())
    yield
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


@pytest.fixture
def command(database_url, monkeypatch, capsys):
    """Runs the command; its exit code, what it printed, and what it complained of."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = await asyncio.to_thread(_load(COMMANDS["replay"][0]), list(arguments))
        except SystemExit as left:
            code = left.code
        return (code, *capsys.readouterr())

    return run


def said(out: str) -> dict:
    """The JSON among what was printed (the worker of this process writes its log there, too)."""
    return json.JSONDecoder().raw_decode(out[out.index("{\n") :])[0]


async def wrong(past: Past) -> None:
    """Some orders, and a summary that is wrong."""
    await past.happens(4)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = captured + 5")


async def test_it_shows_what_would_change_and_applies_it_later(past: Past, command, worker):
    """Row by row and in sum; with --plan exactly that; then nothing differs."""
    await wrong(past)
    code, out, err = await command("--handler", "daily_summary")
    assert code == 0
    assert "(-5)" in out
    assert "in sum  USD  captured -5" in out
    plan = out.split("--plan ")[1].split()[0]
    assert plan in err, "how far it is, is said line by line"
    code, out, _ = await command("--plan", plan)
    assert (code, "Applied: 1 row changed.\n" in out) == (0, True)
    code, out, _ = await command("--handler", "daily_summary", "--json")
    answer = said(out)
    assert (code, answer["changes"], answer["replay"]["changes"]) == (0, [], 0)
    assert answer["replay"]["summary"]["live_hash"] == answer["replay"]["summary"]["rebuilt_hash"]


async def test_apply_shows_and_applies_in_one(past: Past, command, worker):
    """What is printed is what was changed."""
    await wrong(past)
    code, out, _ = await command("--handler", "daily_summary", "--apply", "--rate", "100000", "--json")
    answer = said(out)
    assert (code, answer["replay"]["state"]) == (0, "applied")
    assert [change["applied"] for change in answer["changes"]] == [True]
    assert (await past.run("daily_summary")).changes == 0


async def test_it_says_that_the_world_moved(past: Past, command, worker):
    """Exit code 1, and which row it was."""
    await wrong(past)
    _, out, _ = await command("--handler", "daily_summary", "--json")
    plan = said(out)["replay"]["id"]
    await past.database.execute("UPDATE daily_summary SET captured = captured + 1")
    code, _, err = await command("--plan", plan)
    assert code == 1
    assert "is not the one that was shown" in err
    code, _, err = await command("--plan", plan)
    assert (code, "refused" in err) == (1, True)


async def test_a_replay_is_looked_at_stopped_and_looked_on_again(past: Past, command):
    """Without a worker it waits; status, list, cancel and --resume say so."""
    await wrong(past)
    replay = await past.ask("analytics")
    assert (await command("status", replay))[1] == f"{replay}  analytics  waiting for a worker\n"
    assert replay in (await command("list"))[1]
    assert json.loads((await command("list", "--json"))[1])[0]["id"] == replay
    assert (await command("cancel", replay))[0] == 0
    code, out, _ = await command("--resume", replay)
    assert (code, f"{replay} is cancelled." in out) == (1, True)


async def test_a_replay_that_nobody_carries_is_given_to_a_worker_again(past: Past, command):
    """Its workflow may have been terminated; looking on again has another started."""
    await wrong(past)
    replay = await past.ask("daily_summary")
    await past.database.execute("DELETE FROM workflow_jobs")
    await past.database.execute("UPDATE replays SET updated_at = now() - interval '5 minutes'")
    looking = asyncio.create_task(command("--resume", replay))
    async with asyncio.timeout(30):
        while not (jobs := await past.database.fetch("SELECT workflow_id FROM workflow_jobs")):
            await asyncio.sleep(0.02)
    assert [job["workflow_id"].startswith(f"replay/{replay}/resumed") for job in jobs] == [True]
    await past.carry(replay)
    assert (await looking)[0] == 0


WRONG = [
    (),
    ("--handler", "nothing"),
    ("--handler", "daily_summary", "--from", "yesterday"),
    ("--handler", "daily_summary", "--from", "2026-01-31T12:00:00"),
    ("--handler", "daily_summary", "--from", "2026-01-31T12:00:00Z"),
    ("--handler", "daily_summary", "--from", "2026-02-01", "--to", "2026-01-31"),
    ("--handler", "daily_summary", "--type", "order.accepted.v1"),
    ("--handler", "daily_summary", "--order", "ord_06dzpv7x2m8wq3k9n5t1r4c7j0"),
    ("--handler", "daily_summary", "--rate", "0"),
    ("--handler", "daily_summary", "--parameters", "x"),
    ("--plan", "rpl_x", "--apply"),
    ("--handler", "analytics", "--resume", "rpl_x"),
]


async def test_wrong_usage_is_64_and_asks_for_nothing(past: Past, command):
    """With a line that says what is wrong."""
    for arguments in WRONG:
        code, _, err = await command(*arguments)
        assert (arguments, code, len(err.splitlines())) == (arguments, 64, 1)
    assert not await past.replays.page(None, 1)


async def test_what_is_not_there_is_1(command):
    """For each of the ways to name a replay."""
    for arguments in (("--plan",), ("--resume",), ("status",), ("cancel",)):
        code, _, err = await command(*arguments, "rpl_06dzpv7x2m8wq3k9n5t1r4c7j0")
        assert (code, "there is no replay" in err) == (1, True)


async def test_ctrl_c_only_stops_looking_on(past: Past, database_url):
    """It says how to look on again; the replay waits for a worker as before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "replay", "--handler", "analytics", env={"DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            assert b"waiting for a worker" in await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, said_last = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 130
    (replay,) = await past.replays.page(None, 2)
    assert f"holdfast replay --resume {replay.id}" in said_last.decode()
    assert "Traceback" not in said_last.decode()
    assert replay.state == "waiting"


async def test_a_server_that_is_away_is_69(command, monkeypatch):
    """PostgreSQL cannot be reached."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert (await command("--handler", "analytics"))[0] == 69
