"""The embedded servers one by one: what they keep, and what they recover from."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from app.contracts.temporal import ATTRIBUTES
from app.dev.servers import EmbeddedPostgres, EmbeddedTemporal, EmbeddedValkey
from app.dev.stack import processes
from app.dev.stack.errors import CONFIGURATION, ServiceFailed, StackError
from tests.integration.dev.stacks import ROOT, until


async def execute(server: EmbeddedPostgres, statement: str) -> object:
    """The first value that the statement returns."""
    connection = await asyncpg.connect(server.dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_postgres_keeps_commits_and_its_port_through_kill_and_stop(tmp_path: Path) -> None:
    """A killed postmaster's children and pid file are in nobody's way."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    try:
        before = server.dsn
        await execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = server.pid
        await server.kill()
        await server.start()
        assert await execute(server, "SELECT answer FROM kept") == 42
        await server.stop()
        assert server.pid is None
        await server.start()
        assert await execute(server, "SELECT answer FROM kept") == 42
        assert server.dsn == before
        assert server.pid not in (None, first)
    finally:
        await server.stop()


async def test_postgres_is_durable_and_asks_for_a_password(tmp_path: Path) -> None:
    """What is promised to be on disk is synced; nobody on this machine gets in without the password."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    try:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await execute(server, f"SHOW {setting}") == "on"
        assert await execute(server, "SHOW data_checksums") == "on"
        assert await execute(server, "SELECT current_setting('server_version_num')::int / 10000") == 18
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.dsn.replace(":" + server.dsn.split(":")[2].split("@")[0], ":wrong"))
    finally:
        await server.stop()


async def test_postgres_starts_over_a_pid_file_that_names_a_stranger(tmp_path: Path) -> None:
    """After a reboot the pid in the file may be anybody's."""
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    await server.start()
    await server.kill()
    pid_file = tmp_path / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    await server.start()
    await server.stop()


async def test_postgres_makes_again_what_was_never_complete(tmp_path: Path) -> None:
    """A folder cut short by a kill is no data; one that somebody else left half is kept aside."""
    place = tmp_path / "postgres"
    (place / "data.unfinished-1" / "base").mkdir(parents=True)
    (place / "data" / "base").mkdir(parents=True)
    server = EmbeddedPostgres(place, durable=False)
    await server.start()
    await server.stop()
    assert not (place / "data.unfinished-1").exists()
    assert len(list(place.glob("data.broken-*"))) == 1
    assert len(server.notices) == 2


async def test_postgres_never_replaces_data_that_was_complete(tmp_path: Path) -> None:
    """A damaged folder, or one of another version, is refused with a way on."""
    place = tmp_path / "postgres"
    server = EmbeddedPostgres(place, durable=False)
    await server.prepare()
    version = place / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(StackError, match=r"made by PostgreSQL 17.*--fresh") as refused:
        await EmbeddedPostgres(place).start()
    assert refused.value.exit_code == CONFIGURATION
    version.unlink()
    with pytest.raises(StackError, match=r"damaged.*--fresh"):
        await EmbeddedPostgres(place).start()
    assert (place / "data" / "global" / "pg_control").exists()


async def test_valkey_keeps_what_it_acknowledged_through_a_kill(tmp_path: Path) -> None:
    """Append-only file, and never an eviction."""
    server = EmbeddedValkey(tmp_path / "valkey")
    await server.start()
    try:
        async with redis.asyncio.from_url(server.url) as client:
            await client.set("kept", "yes")
            settings = await client.config_get("*")
        assert settings["appendfsync"] == "everysec"
        assert settings["maxmemory-policy"] == "noeviction"
        await server.kill()
        await server.start()
        async with redis.asyncio.from_url(server.url) as client:
            assert await client.get("kept") == b"yes"
    finally:
        await server.stop()


async def test_ends_are_noticed_where_processes_cannot_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older Python or kernel has no pidfd."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    server = EmbeddedValkey(tmp_path / "valkey", durable=False)
    for end in (server.kill, server.stop):
        await server.start()
        await end()
        assert server.pid is None


async def test_valkey_starts_empty_beside_a_damaged_file(tmp_path: Path) -> None:
    """Redis is never the truth, so a broken file of its must not keep the stack from starting."""
    place = tmp_path / "valkey"
    server = EmbeddedValkey(place)
    await server.start()
    async with redis.asyncio.from_url(server.url) as client:
        for number in range(100):
            await client.set(f"key-{number}", "value" * 10)
    await server.stop()
    file = next(path for path in (place / "appendonlydir").iterdir() if "incr" in path.name)
    content = bytearray(file.read_bytes())
    content[500:600] = b"\xff" * 100
    file.write_bytes(content)
    again = EmbeddedValkey(place)
    await again.start()
    await again.stop()
    assert len(list(place.glob("appendonlydir.broken-*"))) == 1
    assert "filled again" in again.notices[0]


async def test_temporal_keeps_workflows_namespace_and_attributes_through_a_kill(tmp_path: Path) -> None:
    """What was started is still there, and what is registered at start is not lost by starting again."""
    server = EmbeddedTemporal(tmp_path / "temporal")
    await server.start()
    try:
        for _ in range(2):
            client = await Client.connect(server.address, namespace=server.namespace)
            answer = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=server.namespace)
            )
            assert set(ATTRIBUTES) <= set(answer.custom_attributes)
            handle = await client.start_workflow(
                "Nobody",
                id="kept",
                task_queue="none",
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            )
            run = (await handle.describe()).run_id
            await server.kill()
            await server.start()
            client = await Client.connect(server.address, namespace=server.namespace)
            assert (await client.get_workflow_handle("kept").describe()).run_id == run
    finally:
        await server.kill()


async def test_a_taken_port_is_a_clear_failure_that_leaves_nothing_running(tmp_path: Path) -> None:
    """The error says which process, why, and shows the end of its log."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        server = EmbeddedValkey(tmp_path / "valkey", stranger.getsockname()[1])
        with pytest.raises(ServiceFailed, match=r"redis ended while it started.*\n.*valkey.log"):
            await server.start()
        assert server.pid is None


async def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A probe that somebody else answers does not make a server ready."""
    one = EmbeddedValkey(tmp_path / "one", durable=False)
    await one.start()
    try:
        two = EmbeddedValkey(tmp_path / "two", one.port, durable=False)
        with pytest.raises(ServiceFailed):
            await two.start()
    finally:
        await one.stop()


def test_servers_follow_the_process_that_wanted_them(tmp_path: Path) -> None:
    """Killing a test run leaves no server behind."""
    script = f"""
import asyncio, json, signal
from pathlib import Path
from app.dev.servers import EmbeddedPostgres, EmbeddedTemporal, EmbeddedValkey
async def main():
    folder = Path({str(tmp_path)!r})
    servers = [
        EmbeddedPostgres(folder / "postgres", durable=False, follow=signal.SIGQUIT),
        EmbeddedValkey(folder / "valkey", durable=False, follow=signal.SIGKILL),
        EmbeddedTemporal(folder / "temporal", durable=False, follow=signal.SIGKILL),
    ]
    await asyncio.gather(*(server.start() for server in servers))
    print(json.dumps([server.pid for server in servers]), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    servers = json.loads(parent.stdout.readline())
    assert all(processes.identify(pid) for pid in servers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not any(processes.identify(pid) for pid in servers))
    parent.stdout.close()
