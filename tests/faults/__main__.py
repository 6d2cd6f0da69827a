"""``python -m tests.faults [SCENARIO …]``: the long form, all of it or what is named; ``.edgeflow/faults.json``.

A name also stands for all that begin with it: ``crash``, ``control``.
"""

import sys
import tempfile
import time
from pathlib import Path

from bench import report
from bench.report import Figure
from tests.faults.suite import runs
from tests.invariants.servers import Servers

RESULTS = Path(".edgeflow/faults.json")


def main(names: list[str]) -> int:
    """0 when every figure holds, else 1; 2 for a name that there is not."""
    known = runs()
    unknown = [name for name in names if not any(one.startswith(name) for one in known)]
    if unknown:
        print(f"faults: no such scenario: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [one for one in known if not names or any(one.startswith(name) for name in names)]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="edgeflow-faults-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        with Servers(Path(folder) / "servers", durable=True) as servers:
            for name in chosen:
                print(f"== {name}", flush=True)
                started = time.monotonic()
                measured = known[name](servers, Path(folder) / name)
                report.write(RESULTS, measured)
                figures += measured
                print(f"== {name}: {time.monotonic() - started:.0f} s\n{report.table(measured)}\n", flush=True)
    print(report.table(figures))
    return 0 if all(one.holds for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
