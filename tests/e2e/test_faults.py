"""Redis loses all it knows while nothing goes on. What happens to rollouts under faults: tests/faults."""

import httpx
import pytest
import redis

from config.settings import settings
from tests import make
from tests.platform import TLS, Platform

pytestmark = pytest.mark.xdist_group("platform")


def test_flushing_redis_while_idle_signs_nobody_out_or_in(platform: Platform) -> None:
    with httpx.Client(base_url=f"{platform.url()}/api/v1", verify=TLS) as http:
        email = f"{make.organization()}@example.com"
        account = {"email": email, "password": "correct horse battery", "name": "Ada", "organization_name": "A"}
        signed_in = http.post("/auth/register", json=account).json()
        gone = http.post("/auth/login", json={"email": email, "password": account["password"]}).json()
        http.post("/auth/logout", headers={"Authorization": f"Bearer {gone['access_token']}"})
        redis.Redis.from_url(settings().redis_url).flushdb()
        for tokens, status in ((signed_in, 200), (gone, 401)):
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            assert http.get("/auth/profile", headers=headers).status_code == status
