"""A web server for each test."""

from collections.abc import Iterator

import pytest
from web_host import WebHost


@pytest.fixture
def host() -> Iterator[WebHost]:
    """Yield a running server."""
    with WebHost() as server:
        yield server
