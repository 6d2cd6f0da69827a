"""One Node-RED for all tests of this folder, with a person's own flows in it before each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.nodered.instance import NodeRed, NotHere, install
from tests.agent.nodered.samples import OWN


@pytest.fixture(scope="session")
def nodered_home(pytestconfig: pytest.Config) -> Path:
    try:
        return install(Path(pytestconfig.cache.mkdir("nodered")))
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def started(nodered_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeRed]:
    with NodeRed(nodered_home, tmp_path_factory.mktemp("nodered")) as running:
        yield running


@pytest.fixture
def nodered(started: NodeRed) -> NodeRed:
    """With nothing in it but a person's own flows."""
    started.write(OWN, "full")
    return started
