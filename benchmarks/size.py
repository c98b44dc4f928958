"""Pilots of any size: passes, seconds and memory on Parquet.

    python -m benchmarks size               1e6 and 1e7 rows
    python benchmarks/size.py 1e8 FOLDER    any other number: writes FOLDER if it is not there, then measures

Every solve runs in a process of its own, whose peak memory is what the system says at its end.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZES = (1_000_000, 10_000_000)
CANDIDATES, VALUES = 16, 6
PART = 5_000_000
"""Rows of a file."""
MEMORY = "2 GB"
PALETTE = {"v0": "reach 30%", "v1": "+0.2", "v2": "+0.1", "v3": "keep", "v4": "keep", "v5": "keep"}


def write(folder: Path, rows: int, values: int = VALUES, candidates: int = CANDIDATES) -> None:
    """Normal values that share something within a prompt, in float32, whole prompts in each file."""
    folder.mkdir(parents=True, exist_ok=True)
    names, part = [f"v{i}" for i in range(values)], PART // candidates * candidates
    for number, start in enumerate(range(0, rows, part)):
        prompts = min(part, rows - start) // candidates
        rng = np.random.default_rng([0, number])
        table = rng.standard_normal((values, prompts, candidates), np.float32)
        table += rng.standard_normal((values, prompts, 1), np.float32)
        ids = np.repeat(np.arange(start // candidates, start // candidates + prompts), candidates)
        columns = {"prompt_id": ids, **dict(zip(names, table.reshape(values, -1), strict=True))}
        path = folder / f"part-{number:03}.parquet"
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=["prompt_id"])


def measure(folder: Path, memory: str = MEMORY, palette: dict[str, str] | None = None) -> dict[str, Any]:
    """Solve, and read the same bytes once, in this process."""
    import valuepalette as vp
    from valuepalette.shards import open_shards

    shards = open_shards(folder, memory=memory)
    start = time.perf_counter()
    for file in shards.files:
        with pq.ParquetFile(file) as opened:
            for _ in opened.iter_batches(1 << 17, columns=list(shards.head.values)):
                pass
    read = time.perf_counter() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    solution = vp.solve(shards, palette or PALETTE)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    if solution.status is not vp.Status.OPTIMAL:
        raise RuntimeError(f"the palette must have an optimum, got {solution.status.name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": shards.rows,
        "bytes": sum(file.stat().st_size for file in shards.files),
        "read": read,
        "seconds": seconds,
        "processor": busy,
        "passes": solution.passes,
        "kkt": solution.kkt_residual,
        "before": before * 1024,
        "peak": peak * 1024,
    }


def apart(folder: Path) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "measure", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def row(found: dict[str, Any]) -> str:
    return (
        f"| {found['rows']:,} | {found['bytes'] / 1e9:.2f} GB | {found['passes']} | {found['kkt']:.0e} | "
        f"{found['seconds']:.1f} s | {found['processor']:.1f} s | {found['read']:.2f} s | "
        f"{found['peak'] / 1e9:.2f} GB |"
    )


HEAD = """\
| rows | Parquet | Newton's passes | KKT residual | whole solve | of processors | reading it once | peak memory |
|---:|---:|---:|---:|---:|---:|---:|---:|"""


def run() -> str:
    """The table, in Markdown."""
    lines = []
    for rows in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rows)
            lines.append(row(apart(Path(folder))))
    table = "\n".join(lines)
    return f"""\
{VALUES} values in float32, prompts of {CANDIDATES} candidates, a budget of {MEMORY}; six bounds, all of which bind.

{HEAD}
{table}

A whole solve reads the pilot six times besides Newton's passes: to count prompts, twice for exact quantiles of every
value, for base levels and spreads, and twice at the end for the effective number of candidates and the standard errors.
Newton begins on a sample of the prompts.
"""


def main(arguments: list[str]) -> None:
    if arguments[0] == "measure":
        print(json.dumps(measure(Path(arguments[1]))))
        return
    rows, folder = int(float(arguments[0])), Path(arguments[1])
    if not folder.exists():
        write(folder, rows)
    print(HEAD, row(apart(folder)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
