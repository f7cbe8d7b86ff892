"""Owns what is said about the machine beside every figure."""

import os
import platform
from pathlib import Path

import msgspec
import psutil


class Machine(msgspec.Struct):
    """Where the figures were measured. Memory is in bytes; load is the average of the minute before."""

    cores: int
    cpu: str
    memory_bytes: int
    python: str
    kernel: str
    load_before: float
    servers: dict[str, str] = {}


def this_machine() -> Machine:
    """The one this runs on."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu_model(),
        memory_bytes=psutil.virtual_memory().total,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        kernel=f"{platform.system()} {platform.release()}",
        load_before=os.getloadavg()[0],
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): text.strip() for key, text in named.items()}
    return names.get("model name") or names.get("Model") or platform.processor() or platform.machine()
