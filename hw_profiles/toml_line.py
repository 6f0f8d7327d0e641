"""On which line of a TOML file a key stands. The readers of TOML tell that of a syntax error only."""

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# How deep the arrays are that a statement's first lines may leave open.
DEEPEST = 3


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """Line, from 1, on which the value at `path` (keys and list indices) begins; 1 for the empty path.

    text: a readable TOML document that has this path.
    """
    lines = text.split("\n")
    without, with_it = 0, len(lines)  # numbers of lines that do not, and do, reach the path
    while with_it - without > 1:
        middle = (without + with_it) // 2
        if _reaches(_last_readable(lines, middle)[1], path):
            with_it = middle
        else:
            without = middle
    # A value over several lines counts where it starts: after the last lines that were readable without it.
    return _last_readable(lines, with_it - 1)[0] + 1 if path else 1


def _last_readable(lines: list[str], count: int) -> tuple[int, dict[str, Any]]:
    """The largest number of lines up to `count` that read as a document, arrays left open being closed; and the document."""
    while count > 0:
        start = "\n".join(lines[:count])
        for closing in range(DEEPEST + 1):
            try:
                return count, tomllib.loads(start + "\n" + "]" * closing)
            except ValueError:
                continue
        count -= 1
    return 0, {}


def _reaches(data: Any, path: tuple[str | int, ...]) -> bool:
    for part in path:
        if isinstance(part, int):
            if not isinstance(data, list) or len(data) <= part:
                return False
        elif not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True
