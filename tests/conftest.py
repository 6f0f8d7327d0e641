"""Starts the longest files first: with --dist loadfile a file stays in one worker, so a long one at the end would run alone."""

import pytest

LONGEST = (
    "hardspike/test_command.py",
    "hardspike/test_adversary_commands.py",
    "hardspike/test_sweep.py",
    "train/test_parallel.py",
    "deploy/test_lava.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((n for n, name in enumerate(LONGEST) if path.endswith(name)), len(LONGEST))

    items.sort(key=place)
