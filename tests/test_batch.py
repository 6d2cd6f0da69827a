"""Gathering: nothing is lost when handling fails for a while, or for one of many."""

import threading

from app.batch import Batcher
from tests.e2e.conftest import until


class Away(Exception):
    """An error that passes."""


def test_what_fails_for_a_while_is_handled_in_the_end_and_in_order() -> None:
    failures, handled = [Away("a\nb"), Away("c")], list[int]()

    def handle(batch: list[int]) -> None:
        if failures:
            raise failures.pop()
        handled.extend(batch)

    batcher = Batcher("test", handle, seconds=0.01, most=2, passing=(Away,))
    for number in range(5):
        batcher.add(number)
    assert not batcher.drain(0.1)
    assert batcher.drain(5)
    assert handled == [0, 1, 2, 3, 4]


def test_one_bad_item_spoils_only_itself() -> None:
    handled, failed = list[int](), list[int]()

    def handle(batch: list[int]) -> None:
        if 2 in batch:
            raise ValueError("two")
        handled.extend(batch)

    batcher = Batcher(
        "test",
        handle,
        seconds=0.05,
        most=10,
        passing=(Away,),
        failed=lambda batch, _error: failed.extend(batch),
    )
    for number in range(4):
        batcher.add(number)
    assert batcher.drain(5)
    assert (handled, failed) == ([0, 1, 3], [2])
    batcher.add(7)
    until(lambda: 7 in handled, 5)


def test_equal_keys_never_share_a_batch() -> None:
    batches = list[list[str]]()
    batcher = Batcher("test", batches.append, seconds=0.05, most=10, key=lambda item: item[0])
    for item in ("a1", "b1", "a2", "c1", "a3"):
        batcher.add(item)
    assert batcher.drain(5)
    assert batches == [["a1", "b1", "c1"], ["a2"], ["a3"]]


def test_many_add_at_once_and_everything_is_handled_once() -> None:
    handled = list[int]()
    batcher = Batcher("test", handled.extend, seconds=0, most=7)
    threads = [threading.Thread(target=lambda n=n: [batcher.add(n * 100 + i) for i in range(100)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert batcher.drain(5)
    assert sorted(handled) == list(range(800))
