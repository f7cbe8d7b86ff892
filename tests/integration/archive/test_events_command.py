"""`holdfast events`: what is typed, said and left behind, also when it is killed in the middle."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from app.infra.archive import commands
from tests.integration.archive.ages import ROOT, Ages, day, holdfast, month

SLOWLY = """
import asyncio, sys
from app.infra.archive import commands, store
write = store.ArchiveStore.{method}

async def stopping(self, name, content):
    await {before}
    print("here", flush=True)
    await asyncio.sleep(60)

store.ArchiveStore.{method} = stopping
sys.exit(commands.main(sys.argv[1:]))
"""


def shown(number: int) -> str:
    """A month as it is typed."""
    return f"{day(number):%Y-%m}"


async def test_archiving_dropping_and_looking(ages: Ages):
    """Everything that may go goes; the second time there is nothing to do."""
    where = str(ages.folder)
    done = await holdfast(ages.url, "events", "archive", "--to", where, "--before", shown(-3))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [shown(-5), shown(-4)]
    again = await holdfast(ages.url, "events", "archive", "--to", where, "--before", shown(-3), "--json")
    assert msgspec.json.decode(again.stdout) == {"archive": ages.folder.as_uri(), "archived": []}
    would = await holdfast(ages.url, "events", "drop", "--before", shown(-3))
    assert (would.returncode, would.stdout.splitlines()[-1]) == (0, "nothing was done: say --yes")
    held = await ages.held()
    gone = await holdfast(ages.url, "events", "drop", "--before", shown(-3), "--yes", "--json")
    answer = msgspec.json.decode(gone.stdout)
    assert (gone.returncode, answer["refused"]) == (0, None)
    assert [x["partition"] for x in answer["dropped"]] == [f"events_{month(n):%Y_%m}" for n in (-5, -4)]
    assert await ages.held() == held - 12
    look = msgspec.json.decode((await holdfast(ages.url, "events", "list", "--json")).stdout)
    assert [row["month"] for row in look["archived"] if row["dropped_at"]] == [shown(-5), shown(-4)]
    assert f"events_{month(-4):%Y_%m}" not in [part["name"] for part in look["partitions"]]


@pytest.mark.full
async def test_a_refusal_says_why(ages: Ages):
    """Exit code 1, one line, and nothing was done; what went before it stays done."""
    await ages.archive(-5)
    done = await holdfast(ages.url, "events", "drop", "--before", shown(-3), "--yes")
    assert done.returncode == 1
    reasons = f"{shown(-4)} is in no archive; it holds 6 events, its archive 0"
    assert done.stderr == f"holdfast events: events_{month(-4):%Y_%m} is kept: {reasons}\n"
    assert await ages.recorded() == {day(-5): True}


WRONG = [
    (("archive", "--to", "s3://key:secret@bucket"), 64, "credentials"),
    (("archive", "--to", "/proc/nowhere", "--month", shown(-4)), 69, "cannot be reached"),
    (("archive", "--to", "/tmp/x", "--month", "2026-13"), 64, "month"),
    (("archive", "--to", "/tmp/x", "--month", shown(0)), 1, "not over"),
    (("drop",), 64, "--before"),
]


async def test_what_cannot_be_done_is_said_in_a_line(ages: Ages, monkeypatch, capfd):
    """64: nobody understands; 69: nobody answers; 1: it may not be."""
    monkeypatch.setenv("DATABASE_URL", ages.url)
    for arguments, code, said in WRONG:
        found = await asyncio.to_thread(code_of, arguments)
        out, err = capfd.readouterr()
        assert (found, out, err.count("\n")) == (code, "", 1), err
        assert said in err
        assert "secret" not in err


async def test_without_a_database_it_says_so(monkeypatch, capfd):
    """Exit code 69."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    assert await asyncio.to_thread(code_of, ["list"]) == 69
    assert capfd.readouterr().err.count("\n") == 1


def code_of(arguments: Sequence[str]) -> int | str | None:
    """The exit code of `holdfast events`, run here."""
    try:
        return commands.main(list(arguments))
    except SystemExit as left:
        return left.code


@pytest.mark.parametrize(
    ("method", "before"),
    [
        pytest.param("write", "anext(content)", marks=pytest.mark.full),
        ("write_small", "asyncio.sleep(0)"),
        pytest.param("write_small", "write(self, name, content)", marks=pytest.mark.full),
    ],
    ids=["in the file", "before the manifest", "before the record"],
)
async def test_whoever_is_killed_is_followed_by_whoever_finishes_it(
    ages: Ages, tmp_path: Path, method, before
):
    """With `kill -9`, at each place that matters: nothing is on record, and the next one does the whole."""
    slow = tmp_path / "slowly.py"
    slow.write_text(SLOWLY.format(method=method, before=before))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(slow), "archive", "--to", str(ages.folder), "--month", shown(-4),
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DATABASE_URL": ages.url},
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await ages.recorded() == {}
    done = await holdfast(ages.url, "events", "archive", "--to", str(ages.folder), "--month", shown(-4))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(ages.lines(-4)) == 6
    assert await ages.recorded() == {day(-4): False}
