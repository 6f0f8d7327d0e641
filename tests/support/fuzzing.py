"""Reads many damaged files in a child process that may neither hang nor take memory, and reports what came out of each."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from hardspike.snn.errors import HardspikeError

SECONDS = 20  # of one file; a busy machine included
MEMORY = 1 << 30  # above the child's size before the first file
NOT_MADE = "a file could not be damaged"


def outcomes(read: Callable[[Path], object], make: Callable[[int, Path], None], seeds: range, path: Path) -> list[str]:
    """For each seed: `read`, `refused`, or what went wrong. `make(seed, path)` writes the damaged file."""
    found: list[str] = []
    while len(found) < len(seeds):
        rest = seeds[len(found) :]
        lines, ending = _in_a_child(read, make, rest, path)
        found += lines
        if ending:
            found.append(f"seed {rest[len(lines)]}: {ending}")
        assert lines or ending, "the child read nothing"
        assert not lines or not lines[-1].startswith(NOT_MADE), lines[-1]
    return found


def _in_a_child(
    read: Callable[[Path], object], make: Callable[[int, Path], None], seeds: range, path: Path
) -> tuple[list[str], str]:
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        try:
            _serve(read, make, seeds, path, sending)
        except BaseException as error:  # of `make`; the child must not go on as if it were the test
            os.write(sending, f"{NOT_MADE}: {error!r}\n".encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return lines, "hangs" if name == "SIGALRM" else f"ends with {name}"
    return lines, ""


def _serve(
    read: Callable[[Path], object], make: Callable[[int, Path], None], seeds: range, path: Path, sending: int
) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    free, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in seeds:
        signal.alarm(SECONDS)
        make(seed, path)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        line = _outcome(read, path, seed)
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (free, hard))
        os.write(sending, line.encode() + b"\n")


def _outcome(read: Callable[[Path], object], path: Path, seed: int) -> str:
    try:
        read(path)
    except HardspikeError as error:
        text = str(error)
        return "refused" if text.isprintable() and len(text) < 10_000 else f"seed {seed}: no one line: {text[:300]!r}"
    except BaseException as error:
        return f"seed {seed}: {type(error).__name__}: {str(error)[:200]!r}"
    return "read"
