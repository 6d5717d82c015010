"""What every test of the workspace gets: the stores' fixtures, and sockets to loopback for integration tests only."""

import os
from urllib.parse import urlsplit

import pytest
from hypothesis import settings

settings.register_profile("quill", deadline=None)
"""An example's time is the machine's business: speed is measured in `benchmarks`, never in a test."""
settings.load_profile("quill")

pytest_plugins = ("quill_stack.pytest_plugin",)

LOOPBACK = ["127.0.0.1", "localhost"]


def reachable_hosts() -> list[str]:
    """Loopback, and the hosts of stores that the environment names."""
    urls = [os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", "")]
    urls += [f"kafka://{server}" for server in os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").split(",")]
    return LOOPBACK + [host for url in urls if (host := urlsplit(url).hostname)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let integration tests reach the stores. Everything else stays without a network."""
    hosts = reachable_hosts()
    for item in items:
        if item.get_closest_marker("integration"):
            item.add_marker(pytest.mark.allow_hosts(hosts))
