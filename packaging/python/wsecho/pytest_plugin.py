"""The pytest fixture `wsecho`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wsecho import Server, serve


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "wsecho(*flags): the flags of the fixture wsecho.")


@pytest.fixture
def wsecho(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A wsecho that runs for this test, with the flags of `@pytest.mark.wsecho("--prefix", "")`."""
    marker = request.node.get_closest_marker("wsecho")
    with serve(*(marker.args if marker else ())) as server:
        yield server
    # pytest shows this where the test failed.
    print(*server.log, sep="\n")
