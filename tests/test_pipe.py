"""The pipe: what many threads ask of Redis over one connection is answered to each, an error to whom it belongs."""

import threading

import pytest
import redis

from app.redis import Pipe

THREADS, ROUNDS = 8, 200


@pytest.fixture(scope="module")
def pipe() -> Pipe:
    return Pipe("edgeflow-test-pipe", 5.0)


def test_each_of_many_threads_gets_its_own_answers(pipe: Pipe) -> None:
    wrong = list[object]()

    def ask(number: int) -> None:
        for turn in range(ROUNDS):
            said = [f"{number}-{turn}-{part}" for part in range(3)]
            told = pipe.call_many([("ECHO", one) for one in said])
            if told != [one.encode() for one in said]:
                wrong.append(told)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_more_than_one_exchange_takes_comes_back_in_order(pipe: Pipe) -> None:
    said = [str(number) for number in range(1_200)]
    assert pipe.call_many([("ECHO", one) for one in said]) == [one.encode() for one in said]
    assert pipe.call_many([]) == []


def test_an_error_reaches_who_asked_and_nobody_else(pipe: Pipe) -> None:
    with pytest.raises(redis.ResponseError, match="unknown command"):
        pipe.call_many([("ECHO", "a"), ("NONSENSE",), ("ECHO", "b")])
    assert pipe.call("ECHO", "c") == b"c"
