"""R4, R3: each scheduled occurrence runs once with several schedulers, whatever happens to the one that leads."""

import signal
import time
from pathlib import Path

import pytest

from tests.scheduler.cluster import Cluster

TAKEOVER = 10.0  # seconds


@pytest.mark.slow
def test_a_killed_and_a_frozen_leader_are_replaced_and_nothing_runs_twice(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start("a")
        cluster.wait(lambda: cluster.leads("a"), 10)
        cluster.start("b")
        cluster.wait(lambda: cluster.rows("SELECT FROM runs WHERE job = 'rollouts.reconcile' OFFSET 1"), 10)
        assert not cluster.leads("b")

        cluster.signal("a", signal.SIGKILL)
        cluster.wait(lambda: cluster.leads("b"), TAKEOVER)

        cluster.start("c")
        time.sleep(1)
        cluster.signal("b", signal.SIGSTOP)
        cluster.wait(lambda: cluster.leads("c"), TAKEOVER)
        cluster.signal("b", signal.SIGCONT)
        cluster.wait(lambda: "session lost" in cluster.log("b"), 5)
        assert cluster.log("b").count("leading") == 1

        for name in ("b", "c"):
            cluster.signal(name, signal.SIGTERM)
            assert cluster.processes[name].wait(timeout=2) == 0
        cluster.start("d")  # which sends what they had recorded, and not sent yet
        cluster.wait(lambda: cluster.leads("d"), TAKEOVER)
        _each_ran_once(cluster)


def _each_ran_once(cluster: Cluster) -> None:
    unrun = "SELECT FROM scheduled_runs LEFT JOIN runs USING (job, due_at) WHERE ran_at IS NULL"
    cluster.wait(lambda: not cluster.rows(unrun), 5)
    assert cluster.rows("SELECT job, due_at FROM runs GROUP BY 1, 2 HAVING count(*) > 1") == []
    assert cluster.rows("SELECT FROM runs LEFT JOIN scheduled_runs USING (job, due_at) WHERE started_at IS NULL") == []
    (deliveries,), (runs,) = cluster.rows("SELECT count(*) FROM deliveries UNION ALL SELECT count(*) FROM runs")
    assert deliveries > runs  # the worker had every message twice
    gaps = (
        "SELECT max(due_at - before) FROM (SELECT due_at, lag(due_at) OVER (ORDER BY due_at) AS before "
        "FROM runs WHERE job = 'rollouts.reconcile') r"
    )
    assert cluster.rows(gaps)[0][0].total_seconds() <= TAKEOVER + 2
