"""Marks a test that runs Lava; elsewhere it is skipped, and tests/deploy/test_recorded_lava.py stands in for it."""

from typing import TypeVar

import pytest

from hardspike.deploy.lava_backend import lava_available

Test = TypeVar("Test")


def needs_lava(test: Test) -> Test:
    skip = pytest.mark.skipif(not lava_available(), reason="Lava is not installed (Python 3.10: hardspike[lava])")
    return pytest.mark.lava(skip(test))
