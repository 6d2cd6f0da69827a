from collections.abc import Iterator

import pytest

from tests.stripe_contract.openapi import OpenAPI
from tests.stripe_contract.stripe_mock import NotToBeHad, StripeMock


@pytest.fixture(scope="session")
def stripes_own(request: pytest.FixtureRequest) -> StripeMock:
    """Skips the tests that want it where it cannot be had."""
    try:
        return StripeMock(request.config.cache.mkdir("stripe-mock"))
    except NotToBeHad as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def stripe_mock(stripes_own: StripeMock) -> Iterator[str]:
    """The address of a running stripe-mock."""
    with stripes_own.running() as address:
        yield address


@pytest.fixture(scope="session")
def openapi(stripes_own: StripeMock) -> OpenAPI:
    return OpenAPI(stripes_own.openapi)
