"""The pages that tests of sections look at."""

from __future__ import annotations

import pytest

from tests.report.pages import (
    full,
    with_more,
)
from wagle.report.html.rendering import render


@pytest.fixture(scope="session")
def html() -> str:
    return render(full())


@pytest.fixture(scope="session")
def more() -> str:
    return render(with_more(full()))
