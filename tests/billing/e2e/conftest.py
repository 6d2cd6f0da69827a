"""One shop for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.billing.e2e.shop import Shop, open_shop
from tests.invariants.servers import Servers


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Tests that use it share it: mark them ``pytest.mark.xdist_group("billing")``."""
    with (
        Servers(tmp_path_factory.mktemp("billing-servers")) as servers,
        open_shop(tmp_path_factory.mktemp("billing"), servers) as opened,
    ):
        yield opened
