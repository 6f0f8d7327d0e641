"""Make one of the project's two virtual environments, or leave it alone if it is already right.

    make_env.py lava       .venv for Python 3.10 with Lava; without a 3.10, .venv-current, and .venv points to it
    make_env.py current    .venv-current for Python 3.11 to 3.13, without Lava

Any Python from 3.6 on may run this file, and only its standard library is there.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_CURRENT = os.path.join(ROOT, ".venv-current")

# Within the second group the oldest first: it is the one that the pins were made on.
LAVA_VERSIONS = ["3.10"]
CURRENT_VERSIONS = ["3.11", "3.12", "3.13"]
LAVA_PINS = "requirements/lava-py310.txt"
CURRENT_PINS = "requirements/current.txt"
PEERS = "requirements/peers.txt"

STAMP = "hardspike-stamp"
UNFINISHED = ["unfinished"]

PROBE = """
import sys, sysconfig
print("%d.%d" % sys.version_info[:2])
print(getattr(sys, "_base_executable", None) or sys.executable)
print(sysconfig.get_config_var("Py_GIL_DISABLED") or 0)
try:
    import ensurepip, venv
    print(1)
except ImportError:
    print(0)
"""


class Problem(Exception):
    """Something the user has to settle; the message is one line."""


class Interpreter:
    """A Python that was started and answered."""

    def __init__(self, version, path, has_venv):
        self.version = version
        self.path = path
        self.has_venv = has_venv


def say(text):
    print("make_env: " + text, flush=True)


def child_environment():
    environment = dict(os.environ)
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
        environment.pop(name, None)
    environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PYTHONNOUSERSITE="1")
    return environment


def output_of(command):
    """What a command prints, or None if it cannot start, fails, or hangs."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # a pyenv shim obeys the .python-version of where it is started
            env=child_environment(),
            timeout=60,
            universal_newlines=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def probe(path):
    """The interpreter behind a path, or None if there is none that runs."""
    lines = (output_of([path, "-I", "-c", PROBE]) or "").splitlines()
    if len(lines) != 4 or lines[2] != "0":  # C extensions of the pinned packages do not fit a free-threaded build
        return None
    # Of an active virtual environment we want the Python it was made from: the environment may be the one to replace.
    return Interpreter(lines[0], lines[1], lines[3] == "1")


def places(version):
    """Paths at which a Python of this version may be, most deliberate choice first."""
    yield sys.executable
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in ("python" + version, "python3"):
            yield os.path.join(folder or ".", name)
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for path in sorted(glob.glob(os.path.join(pyenv, "versions", version + ".*", "bin", "python" + version))):
        yield path
    if shutil.which("uv"):
        yield (output_of(["uv", "python", "find", "--no-python-downloads", version]) or "").strip()


def find(versions):
    """Every different Python of these versions on this machine, in the order of the versions."""
    found = []
    probed = {}
    for version in versions:
        for path in places(version):
            if not path or not os.access(path, os.X_OK) or os.path.isdir(path):
                continue
            if path not in probed:
                probed[path] = probe(path)
            python = probed[path]
            known = python is None or os.path.realpath(python.path) in [os.path.realpath(p.path) for p in found]
            if not known and python.version == version:
                found.append(python)
    return found


def can_make_venv(python):
    return python.has_venv or shutil.which("uv") is not None


def run(command, what):
    """Run a command in silence; if it fails, show what it said and raise Problem."""
    start = time.time()
    show = sys.stdout.isatty()
    with tempfile.TemporaryFile(mode="w+", errors="replace") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=child_environment(),
            start_new_session=True,  # a group of its own, so that what it starts can be stopped with it
            close_fds=False,  # the lock goes with the child: while a killed make's pip lives on, the next make waits
        )
        try:
            while child.poll() is None:
                if show:
                    print("\rmake_env: %s: %d s " % (what, time.time() - start), end="", flush=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=1)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait()
            if show:
                print()
        if child.returncode != 0:
            log.seek(0)
            # pip warns once per package about index folders that are not there; that is never the cause.
            lines = [line.rstrip() for line in log if not line.startswith("WARNING: Location ")]
            sys.stderr.write("\n".join(lines[-20:]) + "\n")
            raise Problem("%s failed with exit code %d; its last lines stand above" % (what, child.returncode))


def python_of(venv):
    return os.path.join(venv, "bin", "python")


def digest_of(paths):
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def stamp_of(pins):
    """The lines that a finished environment's stamp has: its project, what was installed, and how hardspike was."""
    requirements = sorted(glob.glob(os.path.join(ROOT, "requirements", "*.txt")))  # one may name another
    return [ROOT, pins + " " + digest_of(requirements), digest_of([os.path.join(ROOT, "pyproject.toml")])]


def read_stamp(venv):
    try:
        with open(os.path.join(venv, STAMP)) as file:
            return file.read().splitlines()
    except OSError:
        return []


def write_stamp(venv, lines):
    path = os.path.join(venv, STAMP)
    with open(path + ".new", "w") as file:
        file.write("".join(line + "\n" for line in lines))
    os.replace(path + ".new", path)


def is_fresh(venv, pins):
    return read_stamp(venv) == stamp_of(pins) and output_of([python_of(venv), "-I", "-c", "pass"]) is not None


def remove(venv):
    if os.path.islink(venv) or os.path.isfile(venv):
        os.remove(venv)
    elif os.path.isdir(venv):
        shutil.rmtree(venv)


def can_keep(venv, versions):
    """Whether an installation may build on this environment: it is whole, was not moved, and its pip runs."""
    if os.path.islink(venv) or read_stamp(venv)[:1] not in ([], [ROOT]):  # without a stamp it was made by hand
        return False
    shown = output_of([python_of(venv), "-I", "-m", "pip", "--version"]) or ""
    return any(shown.rstrip().endswith("(python %s)" % version) for version in versions)


def ways_to_create(venv, versions, pythons):
    """Commands that make an empty environment with pip in it, best first."""
    for python in pythons:
        if python.has_venv:
            yield [python.path, "-m", "venv", venv]
    if shutil.which("uv"):
        for request in [python.path for python in pythons] + versions:  # a bare version may be downloaded by uv
            yield ["uv", "venv", "--quiet", "--no-project", "--seed", "--allow-existing", "--python", request, venv]


def create(venv, versions, pythons):
    """Make an empty environment; True if any way led to one."""
    for command in ways_to_create(venv, versions, pythons):
        remove(venv)
        os.mkdir(venv)
        write_stamp(venv, UNFINISHED)  # before anything else, so that a kill at any moment leaves a mark
        try:
            run(command, "making an empty environment with " + os.path.basename(command[0]))
        except Problem as problem:
            say(str(problem))
            continue
        if can_run_pip(venv):
            return True
    remove(venv)
    return False


def can_run_pip(venv):
    return output_of([python_of(venv), "-I", "-m", "pip", "--version"]) is not None


def prepare(venv, versions, pins):
    """Bring an environment up to date; False if this machine has no Python for it."""
    if is_fresh(venv, pins):
        return True
    name = os.path.basename(venv)
    keep = can_keep(venv, versions)
    if not keep:
        if os.path.isdir(venv) and not os.path.islink(venv):
            say("%s is unfinished, broken, moved or of another Python; making it anew" % name)
        if not create(venv, versions, find(versions)):
            return False
    before, wanted = read_stamp(venv), stamp_of(pins)
    pip = [python_of(venv), "-I", "-m", "pip", "install", "--quiet"]
    if before[:2] != wanted[:2]:
        say("installing %s into %s; the first time takes minutes and gigabytes" % (pins, name))
        write_stamp(venv, UNFINISHED)
        try:
            run([*pip, "-r", os.path.join(ROOT, pins)], "pip install -r " + pins)
        except Problem:
            if keep:  # pip undoes what it cannot finish, so that what worked before still does, without a network too
                write_stamp(venv, before)
            raise
        try:
            run([*pip, "--no-deps", "-r", os.path.join(ROOT, PEERS)], "pip install -r " + PEERS)
        except Problem as problem:  # only tests that compare with them need them; they say that they are skipped
            say("other attack libraries are not installed (%s); tests that compare with them will be skipped" % problem)
        write_stamp(venv, wanted[:2])
    say("installing hardspike into %s, as links to this folder" % name)
    run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], "pip install -e .")
    write_stamp(venv, wanted)
    return True


def explain(versions):
    """One line on why no environment could be made."""
    bare = [python for python in find(versions) if not can_make_venv(python)]
    if bare:
        remedy = "install it (on Debian: apt install python%s-venv) or uv" % bare[0].version
        return "%s lacks ensurepip; %s" % (bare[0].path, remedy)
    return "found no Python %s on PATH, in pyenv or through uv; install one of them, or uv" % ", ".join(versions)


def prepare_current():
    if not prepare(VENV_CURRENT, CURRENT_VERSIONS, CURRENT_PINS):
        raise Problem(explain(CURRENT_VERSIONS))


def prepare_lava():
    stands_in = os.path.islink(VENV) and is_fresh(VENV_CURRENT, CURRENT_PINS)
    # Once .venv-current stands in, only a Python 3.10 on this machine is news; uv is not asked to download again.
    if (not stands_in or any(map(can_make_venv, find(LAVA_VERSIONS)))) and prepare(VENV, LAVA_VERSIONS, LAVA_PINS):
        return
    if not prepare(VENV_CURRENT, CURRENT_VERSIONS, CURRENT_PINS):
        raise Problem(explain(LAVA_VERSIONS + CURRENT_VERSIONS))
    remove(VENV)
    os.symlink(os.path.basename(VENV_CURRENT), VENV)
    say("no usable Python 3.10, so no Lava: its results will be missing and its tests skipped; all else works")


def wait_for(lock):
    """Take the lock; two makes at once would delete each other's unfinished environment."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("waiting for another make that is installing")
        fcntl.flock(lock, fcntl.LOCK_EX)


def main():
    kinds = {"lava": prepare_lava, "current": prepare_current}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        sys.stderr.write("make_env: found %s; give one of: lava, current\n" % (sys.argv[1:] or "no argument"))
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that pip is stopped too
    try:
        with open(os.path.join(ROOT, ".venv.lock"), "w") as lock:
            os.set_inheritable(lock.fileno(), True)
            wait_for(lock)
            kinds[sys.argv[1]]()
    except Problem as problem:
        sys.stderr.write("make_env: %s\n" % problem)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("make_env: interrupted; the next make starts over\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
