"""pgbench, PostgreSQL's own load program, running one statement with as many clients as are best.

It comes with the embedded server, else from the system; without it there is no reference and no figure.
"""

import asyncio
import re
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from app.dev.stack.postgres import program
from bench.harness import Side
from bench.processor import pinned
from bench.samples import BenchmarkFailed, Sample

CLIENTS = (1, 2, 4, 8, 16, 32)
TRY_S = 1
_DONE = re.compile(r"transactions actually processed: (\d+)")
_TPS = re.compile(r"tps = ([\d.]+) \(without initial connection time\)")


def binary() -> Path:
    """The installed pgbench. Raises BenchmarkFailed when there is none."""
    own = program() / "bin" / "pgbench"
    found = own if own.is_file() else shutil.which("pgbench")
    if found is None:
        raise BenchmarkFailed("pgbench is not installed: it comes with PostgreSQL")
    return Path(found)


class PgBench(Side):
    """One statement, prepared, a transaction each, for whole seconds."""

    def __init__(
        self,
        name: str,
        dsn: str,
        statement: str,
        *,
        reset: str,
        folder: Path,
        cpu: int,
        servers: Mapping[str, int],
    ) -> None:
        """`reset` is run once the best number of clients is known: what was tried does not count."""
        self.name = name
        self.processes = servers
        self._dsn = dsn
        self._reset = reset
        self._cpu = cpu
        self._script = folder / f"{name.replace(' ', '-')}.sql"
        self._script.write_text(f"{statement};\n", "utf-8")
        self._clients = 1

    async def open(self) -> None:
        """Find the best number of clients."""
        rates = {}
        for clients in CLIENTS:
            self._clients = clients
            sample = await self.run(TRY_S)
            rates[clients] = sample.operations / sample.wall_s
        self._clients = max(rates, key=lambda clients: rates[clients])
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute(self._reset)
        finally:
            await connection.close()

    async def run(self, seconds: float) -> Sample:
        """Run it for so long, at least a second."""
        whole = max(round(seconds), 1)
        where = urlsplit(self._dsn)
        argv = [
            str(binary()),
            "--no-vacuum",
            "--protocol=prepared",
            f"--time={whole}",
            f"--file={self._script}",
        ]
        argv += [f"--client={self._clients}", "--jobs=1", f"--host={where.hostname}", f"--port={where.port}"]
        argv += [f"--username={where.username}", where.path.lstrip("/")]
        before = _cpu_s()
        with pinned(self._cpu):
            process = await asyncio.create_subprocess_exec(
                *argv,
                env={"PGPASSWORD": where.password or ""},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        out, said = (part.decode() for part in await process.communicate())
        done, tps = _DONE.search(out), _TPS.search(out)
        if process.returncode != 0 or done is None or tps is None:
            raise BenchmarkFailed(f"pgbench failed: {said.strip() or out.strip()}")
        used = {"client": _cpu_s() - before}
        return Sample(int(done[1]), int(done[1]) / float(tps[1]), used, {"clients": float(self._clients)})


def _cpu_s() -> float:
    """Processor time of the children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
