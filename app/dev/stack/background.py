"""Owns `up --detach`: a supervisor in a session of its own, and the command that waits until it is ready.

Guarantees: the command returns when the stack is ready, or when it will not be and nothing of it is left. If
the command dies while it waits, the supervisor goes on by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from app.dev.stack import progress
from app.dev.stack.errors import ServiceFailed, StackError, explain
from app.dev.stack.folder import DataFolder
from app.dev.stack.modes import python_environment
from app.dev.stack.progress import Notice, Tell
from app.dev.stack.service import bound, describe, tail
from app.dev.stack.supervisor import Options

REPORT_OPTION = "--report-to"


def start(folder: DataFolder, options: Options, tell: Tell) -> None:
    """Start a supervisor and wait until its stack is ready. Raises StackError when it gave up."""
    ours, theirs = os.pipe()
    log_file = folder.log("supervisor")
    try:
        bound(log_file)
        with log_file.open("ab") as log:
            start_of_log = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "up", *_arguments(folder, options), REPORT_OPTION, str(theirs)],
                env=python_environment(),
                cwd=Path.cwd(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs,),
                start_new_session=True,
            )
    except OSError as error:
        raise explain(error, "Cannot start the supervisor", log_file) from error
    finally:
        os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as lines:
        try:
            last = _follow(lines, tell)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise StackError("Interrupted; nothing was left running.") from None
    if last is not None and last.kind == progress.READY:
        process.returncode = 0  # it lives on without us; no warning about that
        return
    code = process.wait()
    if last is not None:
        raise StackError(last.text, last.code)
    raise ServiceFailed(
        "The supervisor", f"ended while it started ({describe(code)})", log_file, tail(log_file, start_of_log)
    )


def _follow(lines: Iterable[str], tell: Tell) -> Notice | None:
    """Pass notices on until the last one of a start; None when the pipe closed before that."""
    for line in lines:
        notice = progress.received(line)
        if notice.kind in (progress.READY, progress.FAILED):
            return notice
        tell(notice)
    return None


def _arguments(folder: DataFolder, options: Options) -> list[str]:
    arguments = ["--data-dir", str(folder.path)]
    if options.gateway_port is not None:
        arguments += ["--gateway-port", str(options.gateway_port)]
    if options.fresh:
        arguments.append("--fresh")
    if not options.restart:
        arguments.append("--no-restart")
    if options.only_servers:
        arguments += ["--only", "servers"]
    return arguments
