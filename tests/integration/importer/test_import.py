"""`holdfast import` against a running stack: it adds up, it goes on, and it says what is wrong."""

import asyncio
import json
import signal
import sys

import asyncpg
import pytest

pytestmark = pytest.mark.timeout(180)


async def importing(stack, *arguments) -> tuple[int, str]:
    """Run the import; its exit code and output."""
    return await stack.command("import", *map(str, arguments), timeout_s=150)


async def orders_of(stack) -> list[asyncpg.Record]:
    """Every order of an import, and what it came from."""
    connection = await asyncpg.connect((await stack.status())["postgres"]["dsn"])
    try:
        return await connection.fetch(
            "SELECT id, customer_id, status, total, metadata FROM orders WHERE customer_id LIKE 'cdnow-%'"
        )
    finally:
        await connection.close()


async def test_a_purchase_log_becomes_settled_orders(stack, sample):
    """Every purchase is a completed order, and money and pieces agree with the file, also at the provider."""
    before = len(await orders_of(stack))
    code, output = await importing(stack, sample, "--limit", 40, "--json")
    document = json.loads(output.splitlines()[-1])
    assert code == 0, output
    assert document["ok"]
    assert document["accepted"] == document["purchases"] == document["statuses"]["completed"] == 40
    money, items = document["money"], document["items"]
    assert money["file"] == money["captured"] == money["provider"] > 0
    assert items["file"] == items["completed"] == items["left_the_shelves"]
    placed = await orders_of(stack)
    assert len(placed) == before + 40
    assert '"purchased_on"' in placed[0]["metadata"]


@pytest.mark.full
async def test_an_import_that_was_killed_goes_on_and_doubles_nothing(stack, sample, tmp_path):
    """The same command finishes it; the one after that is a new import."""
    log = tmp_path / "log.txt"
    log.write_text("".join(sample.open().readlines()[100:150]))
    before = len(await orders_of(stack))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "import", str(log), "--rate", "20", "--data-dir", str(stack.data_dir)
    )
    async with asyncio.timeout(60):
        while len(await orders_of(stack)) < before + 10:
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    killed_at = len(await orders_of(stack)) - before
    assert 10 <= killed_at < 50
    code, output = await importing(stack, log)
    assert code == 0, output
    assert "going on" in output
    assert len(await orders_of(stack)) == before + 50
    code, output = await importing(stack, log, "--limit", 50)
    assert code == 0, output
    assert "going on" not in output
    assert len(await orders_of(stack)) == before + 100


async def test_free_purchases_are_free_orders(stack, tmp_path):
    """They cost nothing and need no payment."""
    log = tmp_path / "log.txt"
    log.write_text("9001 19970101 3 0.00\n9001 19970102 1 0\n9002 19970102 3 0.01\n")
    code, output = await importing(stack, log, "--json")
    assert code == 0, output
    assert json.loads(output.splitlines()[-1])["money"] == {
        "file": 1,
        "accepted": 1,
        "captured": 1,
        "provider": 1,
    }


async def test_pieces_that_somebody_else_took_are_found(stack, sample, tmp_path):
    """Orders are refused or rejected, the sums differ, and the exit code says so."""
    log = tmp_path / "log.txt"
    log.write_text("9100 19970101 5 61.55\n9101 19970102 3 36.93\n")
    code, output = await importing(stack, log)
    assert code == 0, output
    connection = await asyncpg.connect((await stack.status())["postgres"]["dsn"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "import", str(log), "--rate", "0.5", "--json"),
        *("--data-dir", str(stack.data_dir)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            while not await connection.fetchval(
                "UPDATE stock SET on_hand = reserved WHERE sku = 'cd-1231' AND on_hand > 0 "
                "AND (SELECT count(*) FROM orders WHERE customer_id = 'cdnow-9100') = 2 RETURNING true"
            ):
                assert process.returncode is None, await process.communicate()
                await asyncio.sleep(0.02)
        stdout, _ = await process.communicate()
    finally:
        await connection.close()
    assert process.returncode == 1
    document = json.loads(stdout.splitlines()[-1])
    assert not document["ok"]
    assert any("cd-1231" in finding for finding in document["findings"])


async def test_a_bad_line_is_named(stack, tmp_path):
    """Nothing is placed of a file that cannot be read to its end."""
    log = tmp_path / "log.txt"
    log.write_text("1 19970101 1 5.00\n1 19970101 one 5.00\n")
    before = len(await orders_of(stack))
    code, output = await importing(stack, log)
    assert code == 1
    assert "line 2" in output
    assert len(await orders_of(stack)) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--rate", "0"], 64, "--rate"),
        (["--limit", "x"], 64, "--limit"),
        (["--url", "http://127.0.0.1:1"], 64, "--api-key"),
        (["--url", "ftp://x", "--api-key", "k"], 64, "not a URL"),
        (["--url", "http://127.0.0.1:1", "--api-key", "k"], 69, "does not answer"),
    ],
)
async def test_wrong_usage_and_a_gateway_that_is_not_there(stack, sample, arguments, code, said):
    """One line that says what is wrong, and the exit code of its kind."""
    found, output = await importing(stack, sample, *arguments)
    assert found == code, output
    assert said in output


async def test_no_stack_runs_here(sample, tmp_path):
    """It says how to start one."""
    from tests.acceptance.stack import Stack

    code, output = await importing(Stack(tmp_path / "nothing"), sample)
    assert code == 69
    assert "holdfast up" in output


async def test_a_wrong_key_is_not_waited_for(stack, sample):
    """The gateway's no is final."""
    url = (await stack.status())["gateway"]["url"]
    code, output = await importing(stack, sample, "--url", url, "--api-key", "hf_dev_wrong")
    assert code == 1
    assert "API key" in output


async def test_a_file_that_is_not_there_or_empty(stack, tmp_path):
    """A sentence, no stack trace."""
    (tmp_path / "empty").write_text("\n\n")
    for name, said in (("missing", "No such file"), ("empty", "no purchases")):
        code, output = await importing(stack, tmp_path / name)
        assert code == 1
        assert said in output
        assert "Traceback" not in output
