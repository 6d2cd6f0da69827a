"""The embedded servers: kept between starts, recovered after a kill, private."""

import json
import os
import shutil
import stat
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config import embedded
from config.launch import leftovers
from config.launch.program import LaunchError


def crash(running: embedded.Embedded) -> None:
    """What `kill -9` of the whole tree does: nobody cleans up, the kernel lets go of the lock."""
    watchdog = running._watchdog._child
    assert watchdog is not None
    watchdog.kill()
    for process in running.processes.values():
        process.kill()
        process.wait()
    watchdog.wait()
    running._lock.close()


def test_data_survive_a_stop_and_a_kill(data_dir: Path) -> None:
    running = embedded.start(data_dir)
    first_urls = running.database_url, running.redis_url
    with psycopg.connect(running.database_url) as connection:
        connection.execute("create table kept (word text); insert into kept values ('stored')")
    redis.Redis.from_url(running.redis_url).set("kept", "stored")
    running.stop()

    running = embedded.start(data_dir)
    crash(running)
    # A recycled pid: the file names a process that lives, but is no server.
    pid_file = data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    running = embedded.start(data_dir)
    try:
        assert (running.database_url, running.redis_url) == first_urls
        with psycopg.connect(running.database_url) as connection:
            assert connection.execute("select word from kept").fetchall() == [("stored",)]
        assert redis.Redis.from_url(running.redis_url).get("kept") == b"stored"
    finally:
        running.stop()
    assert leftovers.servers_in(data_dir / "postgres", "postgres") == []
    assert leftovers.servers_in(data_dir / "valkey", "valkey-server") == []


def test_servers_that_outlived_their_supervisor_are_replaced(data_dir: Path) -> None:
    running = embedded.start(data_dir, durable=False)
    old = {process.pid for process in running.processes.values()}
    watchdog = running._watchdog._child
    assert watchdog is not None
    watchdog.kill()
    watchdog.wait()
    running._lock.close()

    again = embedded.start(data_dir, durable=False)
    try:
        assert {process.poll() is not None for process in running.processes.values()} == {True}
        assert old.isdisjoint(process.pid for process in again.processes.values())
        assert psycopg.connect(again.database_url).execute("select 1").fetchone() == (1,)
    finally:
        again.stop()


def test_the_role_is_the_owner_but_passes_no_policy(data_dir: Path) -> None:
    running = embedded.start(data_dir, durable=False, valkey=False)
    try:
        with psycopg.connect(running.database_url) as connection:
            rights = connection.execute(
                "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user"
            ).fetchone()
            owner = connection.execute(
                "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
            ).fetchone()
        assert rights == (False, False, True, False)
        assert owner == ("edgeflow",)
        assert running.redis_url == ""
    finally:
        running.stop()


def test_secrets_are_in_private_files_only(data_dir: Path) -> None:
    running = embedded.start(data_dir, durable=False)
    try:
        secrets = [path.read_text() for path in (data_dir / "secrets").iterdir()]
        assert len(secrets) == 3
        for path in [*(data_dir / "secrets").iterdir(), data_dir / "valkey" / "valkey.conf"]:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        told = " ".join(" ".join(psutil.Process(process.pid).cmdline()) for process in running.processes.values())
        told += " ".join(path.read_text() for path in (data_dir / "log").iterdir())
        assert not any(secret in told for secret in secrets)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(
                port=json.loads((data_dir / "ports.json").read_text())["valkey"], retry=Retry(NoBackoff(), 0)
            ).ping()
    finally:
        running.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
def test_a_closed_folder_stays_closed(data_dir: Path) -> None:
    data_dir.parent.chmod(0o700)
    running = embedded.start(data_dir, durable=False, valkey=False)
    home = (data_dir / "home").readlink()
    try:
        assert psycopg.connect(running.database_url).execute("select 1").fetchone() == (1,)
        running.stop()
        running = embedded.start(data_dir, durable=False, valkey=False)
        assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
        assert not (data_dir / "postgres").exists()
        assert (home / "postgres" / "PG_VERSION").exists()
    finally:
        running.stop()
        shutil.rmtree(home)


def test_a_folder_has_one_holder(data_dir: Path) -> None:
    with embedded.lock(data_dir), pytest.raises(LaunchError, match=f"in use by process {os.getpid()}"):
        embedded.lock(data_dir)
    embedded.lock(data_dir).close()
