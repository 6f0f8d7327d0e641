"""A headless browser that a page must please."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_example import Browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no chromium or google-chrome on this machine")
    made = Browser(executable, tmp_path / "profile")
    try:
        made.connect()
        yield made
    finally:
        made.close()
