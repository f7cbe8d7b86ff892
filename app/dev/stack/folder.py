"""Owns the data folder of a stack: where each thing is in it, who may use it now, and its secrets.

Guarantees: one supervisor at a time (a lock of the kernel's, free again once its holders are dead); what
`clear` removes was made by this program. Secrets are made once and readable by their owner only. If the
process dies here, every file is the old or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets as random
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from app.dev.stack import account
from app.dev.stack.errors import CONFIGURATION, StackError, explain

DEFAULT = Path(".holdfast")
_FREE_BYTES_FIRST = 300_000_000  # PostgreSQL's first files, its log of changes, and room to work
_FREE_BYTES_LATER = 50_000_000
_DATA = ("postgres", "valkey", "temporal", "sandbox")
_MARKER = "stack.json"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the parts of a development stack trust each other by."""

    api_key: str
    stripe_api_key: str
    carrier_webhook_secret: str


class DataFolder:
    """The folder of one stack, by its real path."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self.lock_file = self.path / "lock"
        self.state_file = self.path / "state.json"
        self.ports_file = self.path / "ports.json"
        self.secrets_file = self.path / "secrets.json"
        self.logs = self.path / "logs"

    @property
    def option(self) -> str:
        """What a command needs behind its name to mean this folder, space first; nothing for the default."""
        is_default = self.path == Path(os.path.realpath(DEFAULT))
        return "" if is_default else f" --data-dir {shlex.quote(str(self.path))}"

    def place(self, name: str) -> Path:
        """The folder with the data of one server."""
        return self.path / name

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folder where there is none, and see that it can be used. Raises StackError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            first = not (self.path / _MARKER).exists()
            self._check_space(_FREE_BYTES_FIRST if first else _FREE_BYTES_LATER)
            self.logs.mkdir(exist_ok=True)
            trial = self.path / f"trial.{os.getpid()}"  # permissions alone do not tell, root may do anything
            trial.write_bytes(b"\0" * 4096)
            trial.unlink()
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", "utf-8")
        except OSError as error:
            raise explain(error, "Cannot use the data folder", self.path) from error

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise StackError(
                f"The disk that holds {self.path} has {free // 1_000_000} MB left; "
                f"{needed // 1_000_000} MB are needed. Make room, or choose another --data-dir."
            )

    def lock(self) -> int | None:
        """Take the folder for whoever holds the returned descriptor; None when it is taken."""
        try:
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise explain(error, "Cannot use the data folder", self.lock_file) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise StackError(
                    f"The disk that holds {self.path} knows no locks. Choose a --data-dir on a local disk.",
                    CONFIGURATION,
                ) from error
            raise explain(error, "Cannot use the data folder", self.lock_file) from error
        return handle

    def mark(self) -> None:
        """Put on record that the data in this folder was made by this program."""
        self._replace(self.path / _MARKER, {"made_by": "holdfast", "version": 1})

    def clear(self) -> None:
        """Remove the data of the servers; ports, secrets and logs stay. Raises StackError."""
        places = [self.place(name) for name in _DATA if self.place(name).exists()]
        if places and not (self.path / _MARKER).exists():
            raise StackError(
                f"{self.path} was not made by this program; --fresh does not empty it. Choose another one.",
                CONFIGURATION,
            )
        try:
            for place in (*places, account.aside_of(self.place("postgres"))):
                if place.exists():
                    shutil.rmtree(place)
        except OSError as error:
            raise explain(error, "Cannot empty the data folder", self.path) from error

    def give_back(self) -> None:
        """Where root used somebody else's folder: give them the files that were made."""
        owner = self.path.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                with contextlib.suppress(FileNotFoundError):
                    path = Path(folder) / name
                    if path.lstat().st_uid == 0:
                        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def known_secrets(self) -> Secrets | None:
        """The secrets of this stack, None before its first start."""
        try:
            return Secrets(**json.loads(self.secrets_file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def secrets(self) -> Secrets:
        """The secrets of this stack, made now if there were none."""
        known = self.known_secrets()
        if known is None:
            known = Secrets(
                api_key=f"hf_dev_{random.token_hex(20)}",
                stripe_api_key=f"sk_test_{random.token_hex(20)}",
                carrier_webhook_secret=f"whsec_{random.token_hex(20)}",
            )
            self._replace(self.secrets_file, asdict(known))
        return known

    def save_ports(self, ports: dict[str, int]) -> None:
        """Remember the ports for the next run."""
        self._replace(self.ports_file, ports)

    def _replace(self, file: Path, document: object) -> None:
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            unfinished.touch(mode=0o600)
            unfinished.write_text(json.dumps(document), "utf-8")
            unfinished.replace(file)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise explain(error, "Cannot write", file) from error
