"""Owns the process of a bare server: started as the gateway is, ready when it is yielded."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

from app.dev.stack import probes
from app.dev.stack.modes import python_environment
from app.dev.stack.ports import any_free
from app.dev.stack.service import Spec
from app.dev.stack.stops import of_mode
from bench.harness import Setting
from bench.modes import process
from bench.processor import CPUS
from bench.references.bare import ANSWER, Answer


class Bare(NamedTuple):
    """A bare server that runs."""

    port: int
    pid: int


@asynccontextmanager
async def bare(
    setting: Setting,
    kind: Literal["echo", "answer"],
    answer: Answer | None = None,
    *,
    cpus: Sequence[int] = CPUS,
) -> AsyncIterator[Bare]:
    """A bare server of one kind; `answer` is what one of the kind `answer` always sends."""
    port = any_free()
    told = {} if answer is None else {ANSWER: answer.encoded()}
    spec = Spec(
        name=f"bare-{kind}",
        argv=(sys.executable, "-m", "bench.references.bare", kind, str(port)),
        env=python_environment() | told,
        cwd=setting.folder,
        log=setting.log(f"bare-{kind}"),
        port=port,
        probe=lambda: probes.http_serves(port, "/"),
        stop_steps=of_mode(1.0),
    )
    async with process(setting, spec, cpus=cpus) as pid:
        yield Bare(port, pid)
