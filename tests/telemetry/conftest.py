"""The tunnel's gateways and tenants serve here too."""

from tests.tunnel.conftest import caller, tenant

__all__ = ["caller", "tenant"]
