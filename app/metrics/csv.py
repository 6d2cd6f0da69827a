"""Series as CSV: one line for each point, one column for each label that any of them has. Pure."""

import csv
import io
from collections.abc import Sequence
from typing import Any


def write(series: Sequence[dict[str, Any]]) -> str:
    """``time,name,<labels>,value``; a gap has no value."""
    labels = sorted({label for one in series for label in one["labels"]})
    written = io.StringIO()
    rows = csv.writer(written)
    rows.writerow(["time", "name", *labels, "value"])
    for one in series:
        own = [one["name"], *(one["labels"].get(label, "") for label in labels)]
        rows.writerows([time, *own, value] for time, value in one["points"])
    return written.getvalue()
