"""Random names: of the right form, and never the same twice, in no process."""

import os
from uuid import RFC_4122, UUID

from app import ids


def test_a_command_s_id_is_a_random_uuid() -> None:
    for _ in range(2_000):
        text = ids.command_id()
        made = UUID(text)
        assert (str(made), made.version, made.variant) == (text, 4, RFC_4122)


def test_every_other_bit_of_it_is_random() -> None:
    made = [UUID(ids.command_id()).int for _ in range(200)]
    changing = 0
    for one in made:
        changing |= one ^ made[0]
    assert changing == (1 << 128) - 1 & ~(0xF << 76 | 0x3 << 62)


def test_none_comes_twice() -> None:
    made = [ids.request_id() for _ in range(5_000)] + [ids.command_id() for _ in range(5_000)]
    assert len(set(made)) == len(made)
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in made[:5_000])


def test_a_process_that_was_forked_draws_its_own() -> None:
    ids.request_id()  # some lie ready now
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, " ".join(ids.request_id() for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 10_000).decode().split()
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 20
    assert not set(theirs) & {ids.request_id() for _ in range(1_000)}
