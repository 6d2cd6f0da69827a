"""Where stripe-mock cannot be had, the tests that want it say why."""

from pathlib import Path

import pytest

from tests.stripe_contract import stripe_mock
from tests.stripe_contract.stripe_mock import NotToBeHad, StripeMock


def test_without_go_there_is_a_plain_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stripe_mock, "_USUAL", str(tmp_path / "go"))
    with pytest.raises(NotToBeHad, match="Go is not installed"):
        StripeMock(tmp_path)


def test_a_build_that_fails_tells_its_last_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'go: downloading'\necho 'dial tcp: no route to host' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(NotToBeHad, match=r"offline\?\): dial tcp: no route to host$"):
        StripeMock(tmp_path)
    assert not list(tmp_path.rglob("stripe-mock*"))
