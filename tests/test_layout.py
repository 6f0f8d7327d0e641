"""The folders stay one package, imports point one way, and the package reads no pickle.

Each rule is a function from a file's text to a list of problems, so that the rules themselves are tested on bad text.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("snn", "attack", "train", "convert", "deploy", "hw_profiles")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]

# A folder may import itself and what stands to its left; "hardspike" stands for the files of that folder itself.
ORDER = ("snn", "hw_profiles", "attack", "train", "convert", "deploy", "hardspike")
# Who may open the doors, beside tests and benchmarks.
DOORS = {"hardspike.cli": ("hardspike/__main__.py",), "hardspike.pipeline": ("hardspike/cli.py",)}
# Not there on Python 3.11 and later, slow to import, and with a folder each that may need them.
OPTIONAL = {"lava": ("deploy",), "torchvision": FOLDERS}
# Subclasses of an optional package's classes cannot wait; such a module is itself imported inside a function.
NEEDS_OPTIONAL = {"deploy/lava_neuron/process.py": "lava"}
PICKLE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLE_CALLS = {"torch.load", "torch.jit.load", "torch.hub.load", "torch.hub.load_state_dict_from_url"}
MAX_LINES = 450
ONE_FILE = {"deploy/run_on_loihi.py": 500}  # goes to other people's machines by itself
# Split, so that this file does not find itself.
FOREIGN_PATHS = ("/ro" + "ot/", "/wo" + "rk/", "../sh" + "ared")


def package_directories() -> list[Path]:
    """Every directory of the package, seen through the real folders and never through a link."""
    found = []
    for folder in (*FOLDERS, "hardspike"):
        for top, names, _ in os.walk(ROOT / folder, followlinks=False):
            names[:] = sorted(n for n in names if n != "__pycache__" and not (Path(top) / n).is_symlink())
            found.append(Path(top))
    return found


def package_files() -> list[Path]:
    return [file for folder in package_directories() for file in sorted(folder.glob("*.py"))]


def project_files() -> list[Path]:
    """Files that git has, or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    found = [ROOT / name for name in done.stdout.split("\0") if name]
    return [file for file in found if file.is_file() and not file.is_symlink()]


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def module_name(path: str) -> str:
    """hardspike.snn.network of snn/network.py."""
    name = path.removesuffix(".py").replace("/", ".")
    return (name if is_within(name, "hardspike") else f"hardspike.{name}").removesuffix(".__init__")


def dotted_name(node: ast.expr) -> str:
    """`torch.jit.load` of the expression torch.jit.load; empty where it is not a plain chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted_name(node.value)):
        return f"{left}.{node.attr}"
    return ""


def imported_by_call(call: ast.Call) -> str:
    """`x.y` of import_module("x.y") and its like; empty for other calls and for names known only at run time."""
    is_import = dotted_name(call.func).split(".")[-1] in ("import_module", "__import__")
    return str(call.args[0].value) if is_import and call.args and isinstance(call.args[0], ast.Constant) else ""


def imports_of(node: ast.AST, at_import: bool = True) -> Iterator[tuple[int, int, str, bool]]:
    """(line, dots, full name, runs at import) of every import below a node, import_module("...") included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield child.lineno, 0, alias.name, at_import
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield child.lineno, child.level, f"{child.module or ''}.{alias.name}", at_import
        elif isinstance(child, ast.Call) and (name := imported_by_call(child)):
            yield child.lineno, 0, name, at_import
        if isinstance(child, ast.If) and dotted_name(child.test).split(".")[-1] == "TYPE_CHECKING":
            yield from imports_of(ast.Module(body=child.body, type_ignores=[]), False)
            yield from imports_of(ast.Module(body=child.orelse, type_ignores=[]), at_import)
        else:
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(child, at_import and not in_function)


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def door_problems(text: str, path: str) -> list[str]:
    """Imports of the command line or the pipeline by code that must not know them."""
    return [
        f"{path}:{line}: imports {door}, which only tests and benchmarks may"
        for line, _, name, _ in imports_of(ast.parse(text))
        for door, allowed in DOORS.items()
        if is_within(name, door) and path not in allowed
    ]


def import_problems(text: str, path: str) -> list[str]:
    """Imports that a file of the package must not have."""
    folder = path.split("/")[0]
    problems = door_problems(text, path)
    for line, dots, name, at_import in imports_of(ast.parse(text)):
        first, *rest = name.split(".")
        if dots:
            problems.append(f"{path}:{line}: relative import; write hardspike.{folder}...")
        elif first in FOLDERS:
            problems.append(f"{path}:{line}: imports {first}; write hardspike.{first}")
        elif first == "hardspike" and rest != ["__version__"]:
            target = rest[0] if rest and rest[0] in FOLDERS else "hardspike"
            if at_import and any(is_within(name, module_name(needy)) for needy in NEEDS_OPTIONAL):
                problems.append(f"{path}:{line}: imports {name} with the module; import it inside a function")
            if ORDER.index(target) > ORDER.index(folder):
                problems.append(f"{path}:{line}: {folder} imports {name}, but the order is {' -> '.join(ORDER)}")
        elif first in OPTIONAL:
            if at_import and NEEDS_OPTIONAL.get(path) != first:
                problems.append(f"{path}:{line}: imports {first} with the module; import it inside a function")
            if folder not in OPTIONAL[first]:
                problems.append(f"{path}:{line}: {folder} imports {first}; only {OPTIONAL[first]} may")
    return problems


def pickle_problems(text: str, path: str) -> list[str]:
    """Ways to read a pickle, which can run any code."""
    tree = ast.parse(text)
    aliases: dict[str, str] = {}
    problems = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for line, _, name, _ in imports_of(tree):
        if name.split(".")[0] in PICKLE_MODULES:
            problems.append(f"{path}:{line}: imports {name.split('.')[0]}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = dotted_name(node.func).partition(".")
        name = ".".join(filter(None, (aliases.get(first, first), rest)))
        allows = [k.value for k in node.keywords if k.arg == "allow_pickle"]
        allows += node.args[2:3] if name == "numpy.load" else []
        if name in PICKLE_CALLS:
            problems.append(f"{path}:{node.lineno}: calls {name}")
        if any(not (isinstance(value, ast.Constant) and value.value is False) for value in allows):
            problems.append(f"{path}:{node.lineno}: {name} with allow_pickle")
    return problems


def length_problems(text: str, path: str) -> list[str]:
    lines = len(text.splitlines())
    most = ONE_FILE.get(path, MAX_LINES)
    return [f"{path}: {lines} lines, at most {most}; split it by idea"] if lines > most else []


def foreign_path_problems(content: bytes, path: str) -> list[str]:
    return [f"{path}: mentions {needle}" for needle in FOREIGN_PATHS if needle.encode() in content]


def pin_problems(text: str, path: str) -> list[str]:
    """Requirement lines other than `name==version`, with a marker or not: no ranges, no addresses, no option but -c."""
    pin = re.compile(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*( ; [^#@:]+)?|-c [a-z0-9-]+\.txt")
    lines = enumerate(text.splitlines(), start=1)
    return [f"{path}:{n}: {line!r}" for n, line in lines if not (line.startswith("#") or pin.fullmatch(line))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_mapped_and_linked(folder: str) -> None:
    link = ROOT / "hardspike" / folder
    assert SETUPTOOLS["package-dir"][f"hardspike.{folder}"] == folder
    assert link.is_symlink() and os.readlink(link) == f"../{folder}"


def test_every_directory_with_code_is_a_listed_package() -> None:
    with_code, door = {file.parent for file in package_files()}, ROOT / "hardspike"
    assert not [relative(folder) for folder in with_code if not (folder / "__init__.py").is_file()]
    names = {f"hardspike.{relative(d).removeprefix('hardspike/')}".replace("/", ".") for d in with_code - {door}}
    names |= {"hardspike"}
    assert set(SETUPTOOLS["packages"]) == names
    assert {f"hardspike.{folder}" for folder in FOLDERS} | {"hardspike"} == set(SETUPTOOLS["package-dir"])


def test_every_data_file_goes_into_the_wheel() -> None:
    patterns = [
        SETUPTOOLS["package-dir"][package] + "/" + pattern
        for package, found in SETUPTOOLS["package-data"].items()
        for pattern in found
    ]
    tops = tuple(f"{folder}/" for folder in (*FOLDERS, "hardspike"))
    data = [p for p in map(relative, project_files()) if p.startswith(tops) and not p.endswith((".py", ".md"))]
    assert "hardspike/py.typed" in data
    assert not [p for p in data if not any(PurePosixPath(p).match(pattern) for pattern in patterns)]


def test_imports_point_one_way() -> None:
    assert len(package_files()) >= len(FOLDERS) + 1
    assert not [p for file in package_files() for p in import_problems(file.read_text("utf-8"), relative(file))]


def test_only_tests_and_benchmarks_open_the_doors() -> None:
    files = [f for f in project_files() if f.suffix == ".py" and not relative(f).startswith(("tests/", "benchmarks/"))]
    assert not [p for file in files for p in door_problems(file.read_text("utf-8"), relative(file))]


def test_no_pickle_is_read() -> None:
    assert not [p for file in package_files() for p in pickle_problems(file.read_text("utf-8"), relative(file))]


def test_files_are_short() -> None:
    assert not [p for file in package_files() for p in length_problems(file.read_text("utf-8"), relative(file))]


def test_no_path_leads_out_of_the_project() -> None:
    assert not [p for file in project_files() for p in foreign_path_problems(file.read_bytes(), relative(file))]


def test_everything_is_pinned_and_the_dev_group_agrees() -> None:
    files = {file.name: file.read_text("utf-8") for file in (ROOT / "requirements").glob("*.txt")}
    assert not [p for name, text in files.items() for p in pin_problems(text, name)]
    for requirement in PYPROJECT["dependency-groups"]["dev"]:
        pin, _, marker = (part.strip() for part in requirement.partition(";"))
        wanted = [n for n in ("lava-py310.txt", "current.txt") if not marker or ("<" in marker) == (n != "current.txt")]
        for name in wanted:
            assert pin in files[name].splitlines(), f"{pin} of the dev group is not in requirements/{name}"


def test_importing_the_package_takes_no_bare_name_and_no_optional_package(tmp_path: Path) -> None:
    paths = [relative(f) for f in package_files() if f.name != "__main__.py"]
    names = [module_name(path) for path in paths if path not in NEEDS_OPTIONAL]
    unwanted = {*FOLDERS, *OPTIONAL}
    lines = ["import importlib, sys", f"for name in {names}:", "    importlib.import_module(name)"]
    lines += [f"print(sorted({unwanted} & set(sys.modules)))"]
    # Elsewhere than in the project, where the folders would be importable by accident.
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("snn/a.py", "from . import b", "relative import"),
        ("snn/a.py", "from .b import c", "relative import"),
        ("convert/a.py", "import train", "write hardspike.train"),
        ("convert/a.py", "from train.loop import fit", "write hardspike.train"),
        ("snn/a.py", "import hardspike.attack.pgd", "snn imports hardspike.attack.pgd"),
        ("snn/a.py", "import hardspike.hw_profiles", "snn imports"),
        ("attack/a.py", "from hardspike import train", "attack imports hardspike.train"),
        ("train/a.py", "def f():\n    from hardspike.convert import fold", "train/a.py:2: train imports"),
        ("deploy/a.py", "from hardspike.recipe import Recipe", "deploy imports hardspike.recipe"),
        ("deploy/a.py", "import hardspike", "deploy imports hardspike,"),
        ("hw_profiles/a.py", "from hardspike.attack import pgd", "hw_profiles imports"),
        ("attack/a.py", "import importlib\nimportlib.import_module('hardspike.deploy')", "attack imports"),
        ("hardspike/recipe.py", "import hardspike.pipeline", "only tests and benchmarks"),
        ("hardspike/recipe.py", "from hardspike import cli", "only tests and benchmarks"),
        ("deploy/a.py", "import lava.proc.lif", "inside a function"),
        (
            "deploy/a.py",
            "try:\n    from lava.lib.dl import netx\nexcept ImportError:\n    netx = None",
            "inside a function",
        ),
        ("deploy/a.py", "class A:\n    import lava", "inside a function"),
        ("deploy/a.py", "from hardspike.deploy.lava_neuron.process import ObservedLIF", "inside a function"),
        ("deploy/lava_neuron/process.py", "import torchvision", "inside a function"),
        ("train/a.py", "def f():\n    import lava", "train imports lava"),
        ("train/a.py", "import torchvision.transforms", "inside a function"),
    ],
)
def test_bad_imports_are_found(path: str, text: str, expected: str) -> None:
    assert any(expected in problem for problem in import_problems(text, path)), import_problems(text, path)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("snn/a.py", "import torch\nfrom hardspike.snn.errors import UserError"),
        ("deploy/a.py", "from hardspike import __version__, train\nimport hardspike.hw_profiles"),
        ("deploy/a.py", "def f():\n    from lava.lib.dl import netx"),
        ("deploy/a.py", "if typing.TYPE_CHECKING:\n    import lava"),
        ("deploy/a.py", "def f():\n    from hardspike.deploy.lava_neuron.process import ObservedLIF"),
        ("deploy/lava_neuron/process.py", "from lava.proc.lif.process import LIFReset"),
        ("hw_profiles/a.py", "from hardspike.snn.errors import UserError"),
        ("hardspike/cli.py", "from hardspike.pipeline import run\nfrom hardspike.recipe import Recipe"),
        ("hardspike/__main__.py", "from hardspike.cli import main"),
    ],
)
def test_good_imports_pass(path: str, text: str) -> None:
    assert import_problems(text, path) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import shelve as s",
        "import torch\ntorch.load(file, weights_only=True)",
        "import torch as t\nt.load(file)",
        "from torch import load as read\nread(file)",
        "import numpy as np\nnp.load(file, allow_pickle=True)",
        "import numpy as np\nnp.load(file, allow_pickle=flag)",
        "import numpy as np\nnp.load(file, None, True)",
        "from numpy import load\nload(file, allow_pickle=True)",
    ],
)
def test_reading_a_pickle_is_found(text: str) -> None:
    assert pickle_problems(text, "snn/a.py")


def test_reading_without_pickle_passes() -> None:
    text = "import numpy as np\nfrom safetensors.torch import load\nnp.load(f)\nnp.load(f, allow_pickle=False)\nload(f)"
    assert pickle_problems(text, "snn/a.py") == []


def test_long_files_and_foreign_paths_are_found() -> None:
    assert length_problems("x\n" * (MAX_LINES + 1), "snn/a.py") and not length_problems("x\n" * MAX_LINES, "snn/a.py")
    assert all(foreign_path_problems(f"see {needle}x".encode(), "README.md") for needle in FOREIGN_PATHS)
    assert not foreign_path_problems(b"see docs/results.md", "README.md")


@pytest.mark.parametrize(
    "line",
    ["torch>=2", "torch", "torch==2.13.0+cpu", "-e .", "--index-url x", "a @ file:///x", "a==1 ; x @ file:///y", ""],
)
def test_unpinned_lines_are_found(line: str) -> None:
    assert pin_problems("numpy==2.4.6\ntriton==2.3.1 ; platform_system == 'Linux'\n" + line + "\n", "x.txt")
    assert not pin_problems("# why\nnumpy==2.4.6\n", "x.txt")
