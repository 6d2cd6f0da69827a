"""The tunnel's gateways and tenants serve here too."""

from tests.tunnel.conftest import caller, gateways, tenant

__all__ = ["caller", "gateways", "tenant"]
