"""A browser, the cloud and a device's editor: requests and answers arrive as they were sent, whole and in pieces."""

from typing import Any

import pytest

from tests.edge_nodes.editor.conftest import Served, Setting

pytestmark = pytest.mark.xdist_group("editors")


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_a_page_comes_from_the_device(setting: Setting, web: int) -> None:
    seen: list[Any] = []

    def serve(served: Served) -> None:
        seen.append(served.request)
        served.answer(b"<h1>flows</h1>", 200, ("Content-Type", "text/html"), ("Content-Length", "14"))

    setting.connect(serve)
    browser = setting.browser(web=web)
    answer = browser("GET", "/red/%7Esettings?a=1&b=%20")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "<h1>flows</h1>", "text/html")
    assert (seen[0]["method"], seen[0]["target"], seen[0]["body"]) == ("GET", "/red/%7Esettings?a=1&b=%20", False)
