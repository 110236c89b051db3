"""Lets fixtures know whether their test failed, so that a page that went wrong can be pictured."""

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def went_wrong(request: pytest.FixtureRequest) -> Any:
    return lambda: request.node.stash.get(FAILED, False)
