"""Owns the commands `holdfast up`, `down` and `status`: their options, what they print, their exit codes.

Exit codes: 0 done, 1 failed, 64 wrong usage, 69 a server is not installed here, 78 an unusable folder.
In the foreground `up` is the supervisor (what its death means: supervisor.py); everything else only asks it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from app.dev.stack import background, joining, postgres, progress, report, stopping, temporal, valkey
from app.dev.stack import status as stack_status
from app.dev.stack.errors import FAILED, UNAVAILABLE, StackError
from app.dev.stack.folder import DEFAULT, DataFolder
from app.dev.stack.progress import Notice, Tell
from app.dev.stack.supervisor import Options, Supervisor
from app.usage import Parser

_PORT_MAX = 65535


def up(argv: list[str]) -> int:
    """Start the stack, in the foreground or detached, or report the one that runs."""
    parser = _parser("up", "Start the whole stack on this machine and wait until it is ready.")
    parser.add_argument(
        "--detach", action="store_true", help="return when ready; stop it with: holdfast down"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="start with no data (refused while a stack runs)"
    )
    parser.add_argument(
        "--gateway-port", type=_port, metavar="P", help="the API's port (otherwise 8080, or a free one)"
    )
    parser.add_argument("--no-restart", action="store_true", help="leave what crashed as it is")
    parser.add_argument("--only", choices=["servers"], help=argparse.SUPPRESS)
    parser.add_argument(background.REPORT_OPTION, type=int, help=argparse.SUPPRESS)
    return _run(lambda: _up(parser.parse_args(argv)))


def down(argv: list[str]) -> int:
    """Stop the stack."""
    arguments = _parser("down", "Stop the stack, in order.").parse_args(argv)
    return _run(lambda: _down(arguments))


def status(argv: list[str]) -> int:
    """Show what runs; 0 when the stack is ready, else 1."""
    arguments = _parser("status", "Show what runs. Exit code 0 when ready, 1 otherwise.").parse_args(argv)
    return _run(lambda: _status(arguments))


def _parser(name: str, about: str) -> Parser:
    parser = Parser(prog=f"holdfast {name}", description=about)
    parser.add_argument("--data-dir", type=Path, default=DEFAULT, metavar="D", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= _PORT_MAX:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to {_PORT_MAX}, not {text!r}")
    return int(text)


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except StackError as error:
        with contextlib.suppress(OSError):
            print(f"holdfast: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return FAILED


def _up(arguments: argparse.Namespace) -> int:
    options = Options(
        fresh=arguments.fresh,
        gateway_port=arguments.gateway_port,
        restart=not arguments.no_restart,
        only_servers=arguments.only == "servers",
    )
    _check_machine()
    folder = DataFolder(arguments.data_dir)
    folder.create()
    if arguments.report_to is not None:
        return _report_to(folder, options, arguments.report_to)
    show = progress.shown_on(sys.stderr if arguments.json else sys.stdout)
    try:
        return (_detach if arguments.detach else _foreground)(folder, options, show, as_json=arguments.json)
    finally:
        show.close()


def _foreground(
    folder: DataFolder, options: Options, show: progress.Plain | progress.Lively, *, as_json: bool
) -> int:
    def ready() -> None:
        show(Notice(progress.READY))
        _announce(folder, "Holdfast is ready. Ctrl-C stops it.", as_json=as_json)

    code, joined = asyncio.run(_supervise(folder, options, show, ready))
    if joined is not None:
        _print(_text(joined, f"Holdfast runs already. {_how_to_stop(folder)}", as_json=as_json))
    return code


def _detach(
    folder: DataFolder, options: Options, show: progress.Plain | progress.Lively, *, as_json: bool
) -> int:
    found = asyncio.run(joining.lock_or_join(folder, options, show))
    if not isinstance(found, int):
        _print(_text(found, f"Holdfast runs already. {_how_to_stop(folder)}", as_json=as_json))
        return 0
    os.close(found)  # the supervisor takes it for itself
    background.start(folder, options, show)
    show(Notice(progress.READY))
    _announce(folder, f"Holdfast is ready. {_how_to_stop(folder)}", as_json=as_json)
    return 0


def _how_to_stop(folder: DataFolder) -> str:
    """The command that stops the stack in this folder, and no other one."""
    command = f".venv/bin/holdfast down{folder.option}" if folder.option else "make down"
    return f"Stop it with: {command}"


def _report_to(folder: DataFolder, options: Options, handle: int) -> int:
    """Be the supervisor of `up --detach`: tell the waiting command through the pipe, and our log."""
    os.set_inheritable(handle, False)  # noqa: FBT003 - its only form
    piped, logged = progress.Piped(handle), progress.Plain(sys.stdout, stamped=True)

    def tell(notice: Notice) -> None:
        piped(notice)
        logged(notice)

    try:
        code, joined = asyncio.run(_supervise(folder, options, tell, lambda: tell(Notice(progress.READY))))
    except StackError as error:
        tell(Notice(progress.FAILED, text=str(error), code=error.exit_code))
        raise
    if joined is not None:
        tell(Notice(progress.READY))
    elif code != 0:
        tell(Notice(progress.FAILED, text="It was stopped before it was ready.", code=FAILED))
    return code


async def _supervise(
    folder: DataFolder, options: Options, tell: Tell, ready: Callable[[], None]
) -> tuple[int, dict[str, Any] | None]:
    """Run a stack until it is told to stop; the status of the one that runs already, where one does."""
    found = await joining.lock_or_join(folder, options, tell)
    if not isinstance(found, int):
        return 0, found
    try:
        return await Supervisor(folder, found, options, tell).run(ready), None
    finally:
        os.close(found)


def _down(arguments: argparse.Namespace) -> int:
    show = progress.shown_on(sys.stderr if arguments.json else sys.stdout)
    try:
        stopped = asyncio.run(stopping.stop_stack(DataFolder(arguments.data_dir), show))
    finally:
        show.close()
    if arguments.json:
        _print(json.dumps({"state": stack_status.STOPPED, "stopped": stopped}))
    else:
        _print("Stopped." if stopped else "Nothing runs here.")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    folder = DataFolder(arguments.data_dir)
    found = asyncio.run(stack_status.snapshot(folder))
    if arguments.json:
        _print(json.dumps(found))
    else:
        _print(report.status(found, folder.option, stack_status.refusals(folder)))
    return 0 if found["state"] == stack_status.READY else FAILED


def _check_machine() -> None:
    """See that the servers are installed and can run here. Raises StackError."""
    if sys.platform != "linux":
        raise StackError(
            f"The embedded stack runs on Linux, not on {sys.platform}. Run servers of your own, and start "
            "each mode (MODE=… holdfast) with DATABASE_URL, REDIS_URL, TEMPORAL_ADDRESS and so on.",
            UNAVAILABLE,
        )
    for server in (postgres, valkey, temporal):
        server.program()


def _announce(folder: DataFolder, headline: str, *, as_json: bool) -> None:
    _print(_text(stack_status.document(folder, stack_status.READY), headline, as_json=as_json))


def _text(document: dict[str, Any], headline: str, *, as_json: bool) -> str:
    return json.dumps(document) if as_json else report.summary(document, headline)


def _print(text: str, out: IO[str] | None = None) -> None:
    with contextlib.suppress(OSError):
        print(text, file=out or sys.stdout, flush=True)
