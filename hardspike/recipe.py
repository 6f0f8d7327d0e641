"""One recipe = the settings of all stages, read from TOML, checked, and saved as resolved beside every result."""

import re
import sys
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from hardspike.attack.settings import AttackSettings
from hardspike.convert.robust_conversion import ConvertSettings
from hardspike.deploy.compile import DeploySettings
from hardspike.deploy.replay import ReplaySettings
from hardspike.deploy.verify import VerifySettings
from hardspike.snn.errors import FileError, SettingsError, unknown_name
from hardspike.snn.ranges import require
from hardspike.snn.settings import DataSettings, NetworkSettings
from hardspike.train.train_ann import TrainSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """cost_profile: a profile with cost sets; it prices the event counts. examples: how many images to show."""

    cost_profile: str = "loihi1"
    examples: int = 8

    def __post_init__(self) -> None:
        require("report.examples", self.examples, self.examples >= 0, "use 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """name: of the run folder. threads: of PyTorch; part of the recipe because sums depend on it.

    control: fields to change for a second network that goes through the same stages beside this one, e.g. natural training.
    """

    name: str
    threads: int = 1
    data: DataSettings = field(default_factory=DataSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    convert: ConvertSettings = field(default_factory=ConvertSettings)
    deploy: DeploySettings = field(default_factory=DeploySettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    attack: AttackSettings = field(default_factory=AttackSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    control: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None
        require("name", self.name, named, "use letters, digits, '.', '_' and '-'")
        require("threads", self.threads, self.threads >= 1, "use 1 or more")
        self.control_recipe()

    def control_recipe(self) -> "Recipe | None":
        """The recipe of the control network, or None where no field is changed."""
        if not self.control:
            return None
        merged = _merge(asdict(replace(self, control={})), self.control)
        return recipe_from_table(merged | {"name": "control"}, "recipe, control")

    def to_toml(self) -> str:
        return tomli_w.dumps(_plain(asdict(self)))


def read_recipe(path: Path) -> Recipe:
    """Raises FileError when the file is missing or no TOML, SettingsError for an unknown key or a value out of range."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file; give a recipe, e.g. train/recipes/digits.toml") from None
    except IsADirectoryError:
        raise FileError(f"{path}: is a folder; give a recipe file, e.g. train/recipes/digits.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: not readable as TOML ({error})") from None
    return recipe_from_table({"name": path.stem} | table, str(path))


def recipe_from_table(table: Mapping[str, Any], where: str) -> Recipe:
    return _build(Recipe, table, where, "")


def first_difference(old: Recipe, new: Recipe) -> str:
    """`field: old value, new value` of the first field that differs; '' where none does."""
    before, after = _flatten(_plain(asdict(old))), _flatten(_plain(asdict(new)))
    for key in sorted(set(before) | set(after)):
        if before.get(key) != after.get(key):
            return f"{key} = {before.get(key)!r} there, {after.get(key)!r} here"
    return ""


def _build(kind: type[T], table: Mapping[str, Any], where: str, prefix: str) -> T:
    """A settings dataclass from a TOML table; every key must be known and every value of the field's type."""
    assert is_dataclass(kind)
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where}: {prefix.rstrip('.')} = {table!r} is not a table; write [{prefix.rstrip('.')}]")
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise SettingsError(f"{where}: " + unknown_name("key", prefix + key, [prefix + name for name in known]))
        values[key] = _value(hints[key], value, where, prefix + key)
    try:
        return kind(**values)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where, key + ".")
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise SettingsError(
                f"{where}: " + unknown_name(key, str(value), [str(choice) for choice in get_args(hint)])
            )
        return value
    if origin in (Union, types.UnionType):
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{where}: {key} = {value!r} is not a list; write [{value!r}]")
        return tuple(_value(get_args(hint)[0], item, where, key) for item in value)
    if origin is dict:
        return dict(value)
    if hint is float and not isinstance(value, bool):
        number = _number(value)
        if number is not None:
            return number
    if isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise SettingsError(f"{where}: {key} = {value!r} is not of type {hint.__name__}; mend the value")


def _number(value: Any) -> float | None:
    """Numbers, and fractions written as text: budgets are often given as "8/255"."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*/\s*[1-9]\d*\s*", value):
        return float(Fraction(value.replace(" ", "")))
    return float(value) if isinstance(value, int | float) else None


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
