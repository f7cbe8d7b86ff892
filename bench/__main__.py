"""Owns the command `python -m bench`, which `make bench` runs.

Exit codes: 0 it ran (goals that were missed are shown, they are no error), 1 a benchmark could not run or
left behind something else than it should have, 64 there is no benchmark of that name. If the process dies
here, the servers it started end with it and no file was written.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from bench import chapter, picture, results
from bench.harness import Setting, run_benchmark
from bench.machine import this_machine
from bench.registry import MODULES, load
from bench.report import Terminal, print_document
from bench.samples import BenchmarkFailed

WRONG_USAGE = 64
FOLDER = Path(__file__).parents[1] / "build" / "bench"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="This project beside its references, as ratios."
    )
    parser.add_argument("--only", default="", help=f"one of {', '.join(MODULES)}; several with commas")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--svg", type=Path, help="draw the results into this file")
    parser.add_argument("--docs", type=Path, help="write the table of results into this document")
    parser.add_argument(
        "--from", type=Path, action="append", metavar="JSON", help="measure nothing, take earlier results"
    )
    arguments = parser.parse_args(argv)
    names = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(MODULES)
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        known = ", ".join(MODULES)
        print(f"bench: no benchmark is called {', '.join(unknown)}; there are {known}", file=sys.stderr)
        return WRONG_USAGE
    try:
        for path in filter(None, (arguments.json, arguments.svg)):
            path.parent.mkdir(parents=True, exist_ok=True)
        earlier = vars(arguments)["from"]
        document = results.read(earlier) if earlier else _measure(names, Terminal())
        print_document(document)
        _write(document, arguments)
    except (OSError, BenchmarkFailed, msgspec.MsgspecError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    return 1 if document.failures else 0


def _write(document: results.Document, arguments: argparse.Namespace) -> None:
    if arguments.json:
        results.write(document, arguments.json)
        print(f"results: {arguments.json}")
    if arguments.svg:
        picture.write(document, arguments.svg)
        print(f"picture: {arguments.svg}")
    if arguments.docs:
        chapter.rewrite(document, arguments.docs)
        print(f"document: {arguments.docs}")


def _measure(names: Sequence[str], terminal: Terminal) -> results.Document:
    machine = this_machine()
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    document = results.Document(machine=machine, results=[], failures=[], measured_at=now)
    for name in names:
        with _folder(name, terminal) as folder:
            setting = Setting(folder, terminal)
            terminal.begin(name)
            try:
                measured = uvloop.run(run_benchmark(load(name), setting))
                document.results += results.results_of(name, measured)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other benchmarks go on
                document.failures.append(results.Failure(name, f"{type(error).__name__}: {error}"))
            finally:
                terminal.end()
            machine.servers |= setting.versions
    return document


@contextlib.contextmanager
def _folder(name: str, terminal: Terminal) -> Iterator[Path]:
    """An empty folder of the benchmark's own; only the logs stay, until it runs again."""
    folder = FOLDER / name
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            terminal.say(f"another run of {name} is not over yet; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            _keep_logs(folder)
            for log in sorted(folder.glob("*.log")):
                terminal.say(f"log: {os.path.relpath(log)}")


def _keep_logs(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.suffix != ".log":
            entry.unlink()


if __name__ == "__main__":
    sys.exit(main())
