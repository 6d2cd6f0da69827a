"""``python -m bench [SUITE …]``: run the named suites (all of them by default), print a table, write ``bench.json``.

A suite is a module ``bench/<name>.py`` with ``run() -> list[Figure]``. Each runs in a process of its own, so that none
inherits another's memory, patches or connections.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench import report
from bench.report import Figure

SUITES = ("commands", "tunnels", "rollout", "devices", "ingest", "metrics", "alerts", "editor")
RESULTS = Path(".edgeflow/bench.json")


def main(names: list[str]) -> int:
    """0 when every figure holds its target, else 1; 2 for a suite that there is not."""
    unknown = sorted(set(names) - set(SUITES))
    if unknown:
        print(f"bench: no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name in names or SUITES:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        measured = _apart(name)
        report.write(RESULTS, measured)
        figures += measured
        print(f"== {name}: {time.monotonic() - started:.0f} s\n{report.table(measured)}\n", flush=True)
    print(report.table(figures))
    return 0 if all(one.holds for one in figures) else 1


def _apart(name: str) -> list[Figure]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(report.measure, name).result()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
