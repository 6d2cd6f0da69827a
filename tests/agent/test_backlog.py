"""What is not acknowledged is kept: over restarts and torn files, within a bound, oldest first."""

import asyncio
import os

import pytest

from agent.backlog import Backlog, DiskBacklog, Framed


def batch(number, size=100):
    return Framed(f"id-{number}", f'{{"n":{number},"x":"{"ü" * (size // 2)}"}}', points=2, lines=1)


def ids(backlog):
    return [entry.id for entry in backlog.oldest(100_000)]


def texts(backlog):
    return [backlog.text(entry) for entry in backlog.oldest(100_000)]


def on_disk(folder):
    return sum(path.stat().st_size for path in folder.glob("*.log"))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_it_gives_back_what_was_put_in_order_until_it_is_done(tmp_path, kind):
    backlog = Backlog() if kind == "memory" else DiskBacklog(tmp_path / "t")
    for number in range(5):
        backlog.put(batch(number))
    assert texts(backlog) == [batch(number).text for number in range(5)]
    assert backlog.done("id-1") is True
    assert backlog.done("id-1") is backlog.done("unknown") is False
    assert ids(backlog) == ["id-0", "id-2", "id-3", "id-4"]
    assert ("id-0" in backlog, "id-1" in backlog, len(backlog)) == (True, False, 4)


def test_a_restart_finds_what_was_not_acknowledged(tmp_path):
    backlog = DiskBacklog(tmp_path)
    for number in range(6):
        backlog.put(batch(number))
    for number in (0, 3):
        backlog.done(f"id-{number}")
    # Without closing: kill -9 asks nobody.
    again = DiskBacklog(tmp_path)
    assert ids(again) == ["id-1", "id-2", "id-4", "id-5"]
    assert texts(again) == [batch(number).text for number in (1, 2, 4, 5)]
    again.put(batch(6))
    again.done("id-1")
    third = DiskBacklog(tmp_path)
    assert ids(third) == ["id-2", "id-4", "id-5", "id-6"]
    assert [(entry.points, entry.lines) for entry in third.oldest(9)] == [(2, 1)] * 4


def test_acknowledgements_hold_over_restarts_whatever_files_go_first(tmp_path):
    """An `ack` in a newer file than its batch: the newer one must not go while the older one stays."""
    backlog = DiskBacklog(tmp_path, max_bytes=64_000)
    for number in range(60):
        backlog.put(batch(number, 600))
    assert len(list(tmp_path.glob("*.log"))) > 5
    for number in range(1, 60):
        backlog.done(f"id-{number}")
    assert ids(DiskBacklog(tmp_path, max_bytes=64_000)) == ["id-0"]


def test_files_go_when_nothing_waits_any_more(tmp_path):
    backlog = DiskBacklog(tmp_path, max_bytes=64_000)
    for number in range(60):
        backlog.put(batch(number, 600))
    for number in range(60):
        backlog.done(f"id-{number}")
    assert on_disk(tmp_path) == 0
    assert len(list(tmp_path.glob("*.log"))) == 1
    for number in range(1000):
        backlog.put(batch(number))
        backlog.done(f"id-{number}")
    assert on_disk(tmp_path) == 0


@pytest.mark.parametrize("cut", [1, 2, 40, 130])
def test_a_torn_tail_costs_the_torn_record_only(tmp_path, cut, caplog):
    backlog = DiskBacklog(tmp_path)
    for number in range(3):
        backlog.put(batch(number))
    backlog.close()
    (path,) = tmp_path.glob("*.log")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = DiskBacklog(tmp_path)
    # A record that lacks nothing but its line's end is whole.
    kept = 3 if cut == 1 else 2
    assert texts(again) == [batch(number).text for number in range(kept)]
    assert ("cut short" in caplog.text) is (cut > 1)
    again.put(batch(9))
    assert texts(DiskBacklog(tmp_path)) == [batch(number).text for number in [*range(kept), 9]]


def test_a_file_of_zeros_and_flipped_bits_harms_nothing_else(tmp_path):
    backlog = DiskBacklog(tmp_path)
    for number in range(3):
        backlog.put(batch(number))
    backlog.close()
    (path,) = tmp_path.glob("*.log")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged) + b"\0" * 5000)
    assert texts(DiskBacklog(tmp_path)) == [batch(0).text, batch(2).text]


def test_the_bound_holds_and_what_it_costs_is_counted_and_survives(tmp_path):
    backlog, bound = DiskBacklog(tmp_path, max_bytes=64_000), 64_000
    for number in range(500):
        backlog.put(batch(number, 600))
        assert on_disk(tmp_path) <= bound
    kept = ids(backlog)
    assert kept == [f"id-{number}" for number in range(500 - len(kept), 500)]
    # All but the oldest of the sixteen files is in use.
    assert len(kept) * 650 > bound * 13 / 16
    assert backlog.lost.batches == 500 - len(kept)
    assert (backlog.lost.points, backlog.lost.lines) == (2 * backlog.lost.batches, backlog.lost.batches)
    again = DiskBacklog(tmp_path, max_bytes=bound)
    assert again.lost == backlog.lost
    assert ids(again) == kept
    again.told()
    assert not DiskBacklog(tmp_path, max_bytes=bound).lost


def test_the_loss_is_remembered_while_all_that_was_kept_is_acknowledged(tmp_path):
    backlog = DiskBacklog(tmp_path, max_bytes=64_000)
    for number in range(200):
        backlog.put(batch(number, 600))
    lost = backlog.lost.batches
    for batch_id in ids(backlog):
        backlog.done(batch_id)
    assert DiskBacklog(tmp_path, max_bytes=64_000).lost.batches == lost > 0


def test_memory_is_bounded_too():
    backlog = Backlog(max_bytes=10_000)
    for number in range(200):
        backlog.put(batch(number, 1000))
    assert sum(len(text) for text in texts(backlog)) <= 10_000
    assert len(backlog) + backlog.lost.batches == 200
    assert ids(backlog)[-1] == "id-199"


def test_a_disk_that_is_full_costs_durability_only(tmp_path, monkeypatch, caplog):
    backlog = DiskBacklog(tmp_path)
    backlog.put(batch(0))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: real(handle, data[:20], at))
    for number in (1, 2):
        backlog.put(batch(number))
    assert texts(backlog) == [batch(number).text for number in range(3)]
    assert caplog.text.count("cannot be stored") == 1
    monkeypatch.undo()
    backlog.done("id-1")
    backlog.put(batch(3))
    assert texts(DiskBacklog(tmp_path)) == [batch(0).text, batch(3).text]


def test_a_batch_larger_than_a_file_is_kept_in_memory(tmp_path):
    backlog = DiskBacklog(tmp_path, max_bytes=16_000)
    backlog.put(batch(0, 4_000))
    assert texts(backlog) == [batch(0, 4_000).text]
    assert on_disk(tmp_path) == 0


def test_syncing_reaches_the_card(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size) or real(handle))
    backlog = DiskBacklog(tmp_path)
    backlog.put(batch(0))
    before = len(synced)
    asyncio.run(backlog.sync())
    assert synced[before:] == [on_disk(tmp_path)]


def test_acknowledgements_are_synced_before_the_cloud_could_forget_the_ids(tmp_path, monkeypatch):
    backlog = DiskBacklog(tmp_path)
    for number in range(100):
        backlog.put(batch(number))
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(len(backlog)))
    for number in range(96):
        backlog.done(f"id-{number}")
    # At most 16 acknowledgements are ever unsynced; with 16 batches ahead of the oldest that is within 32.
    assert max(a - b for a, b in zip([100, *synced], synced, strict=False)) <= 16
