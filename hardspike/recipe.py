"""One recipe = the settings of all stages, read from TOML, checked, and saved as resolved beside every result."""

import re
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from hardspike.attack.settings import AttackSettings
from hardspike.convert.conversion import ConvertSettings
from hardspike.deploy.compile import DeploySettings
from hardspike.deploy.integer_training import finetuning
from hardspike.deploy.replay import ReplaySettings
from hardspike.deploy.verify import VerifySettings
from hardspike.snn.errors import FileError, SettingsError, unknown_name
from hardspike.snn.ranges import require
from hardspike.snn.settings import DataSettings, NetworkSettings
from hardspike.train.first_network import TrainSettings
from hardspike.train.settings import FitSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
STAGES = ("train", "convert", "deploy", "verify", "attack", "replay", "report")
FLOAT_STAGES = ("train", "convert", "attack", "report")
# Which finished stages each one builds on; their settings decide its result.
NEEDS: dict[str, tuple[str, ...]] = {
    "train": (),
    "convert": ("train",),
    "deploy": ("convert",),
    "verify": ("deploy",),
    "attack": ("deploy",),
    "replay": ("attack",),
    "report": ("verify", "replay"),
}
FLOAT_NEEDS: dict[str, tuple[str, ...]] = {"attack": ("convert",), "report": ("attack",)}


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

    device: where networks are trained and attacked, `cpu` or `cuda` (the integer network stays on the CPU).
    tensorboard: also write the training curves for TensorBoard, into the run folder.
    control: fields to change for a second network that goes through the same stages beside this one, e.g. natural training.
    """

    name: str
    threads: int = 1
    device: str = "cpu"
    tensorboard: bool = False
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
        require("device", self.device, re.fullmatch(r"cpu|cuda(:\d+)?", self.device) is not None, "use cpu or cuda")
        if self.device != "cpu":
            import torch

            require("device", self.device, torch.cuda.is_available(), "PyTorch finds no GPU here; use cpu")
        ready = (self.convert.method == "none") == (self.train.time_steps > 0)
        require(
            "convert.method",
            self.convert.method,
            ready,
            "use none exactly where train.time_steps gives a spiking network",
        )
        targets = tuple(target for target in self.attack.targets if target not in self.missing_networks())
        require("attack.targets", self.attack.targets, bool(targets), "none of these networks is made by this recipe")
        object.__setattr__(self, "attack", replace(self.attack, targets=targets))
        self.finetuning()
        self.control_recipe()

    @property
    def stages(self) -> tuple[str, ...]:
        """In order; without the integer network where deploy.enabled is false."""
        return STAGES if self.deploy.enabled else FLOAT_STAGES

    def needs(self, stage: str) -> tuple[str, ...]:
        """The stages that `stage` builds on."""
        return NEEDS[stage] if self.deploy.enabled else FLOAT_NEEDS.get(stage, NEEDS[stage])

    def missing_networks(self) -> set[str]:
        """Names of networks that this recipe does not make; they are no targets."""
        first = {"ann"} if self.train.time_steps > 0 else set()
        return first if self.deploy.enabled else first | {"quantised", "deployed"}

    @property
    def last_training(self) -> TrainSettings | ConvertSettings:
        """Of the stage that trained the float network last."""
        return self.convert if self.convert.epochs else self.train

    def finetuning(self) -> FitSettings | None:
        """How the integers are trained, as the last stage before trained the float network; None where they are not."""
        if not (self.deploy.enabled and self.deploy.finetune_epochs):
            return None
        return finetuning(self.last_training, self.deploy)

    def training(self) -> str:
        """How the spiking network was made, in words."""
        made = f"{self.train.objective} {'SNN' if self.train.time_steps else 'ANN'}"
        made += f", {self.convert.objective} finetuning" if self.convert.epochs else ""
        integers = self.finetuning()
        return made if integers is None else f"{made}, {integers.objective} finetuning of the integers"

    def control_recipe(self) -> "Recipe | None":
        """The recipe of the control network, or None where no field is changed."""
        if not self.control:
            return None
        merged = _merge(asdict(replace(self, control={})), self.control)
        return recipe_from_table(merged | {"name": "control"}, "recipe, control")

    def to_toml(self) -> str:
        return tomli_w.dumps(_plain(asdict(self)))


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, which may name another one as its `base` (a path, seen from the file) and change fields of it.

    changes: `table.field=value` each, applied last; the value is TOML, or text.

    Raises FileError when a file is missing or no TOML, or bases go in a circle; SettingsError for an unknown key or a value out
    of range.
    """
    table = _merge({"name": path.stem}, _with_bases(path, ()))
    for change in changes:
        table = _merge(table, _change(change))
    return recipe_from_table(table, str(path))


def _with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file's table over that of its base, and so on."""
    if path.resolve() in seen:
        raise FileError(f"{path}: is its own base; take 'base' out of one of {', '.join(p.name for p in seen)}")
    table = _read_toml(path)
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise SettingsError(f'{path}: base = {base!r} is not the path of a recipe; write base = "../base.toml"')
    inherited = _with_bases(path.parent / base, (*seen, path.resolve()))
    inherited.pop("name", None)  # a name is a file's own
    return _merge(inherited, table)


def _change(text: str) -> dict[str, Any]:
    """`train.epochs=2` as {"train": {"epochs": 2}}."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\s*\w+(\.\w+)*\s*", key):
        raise SettingsError(f"--set {text}: is not of the form table.field=value, e.g. train.epochs=2")
    try:
        nested: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        nested = value.strip()
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file; give a recipe, e.g. train/recipes/digits.toml") from None
    except IsADirectoryError:
        raise FileError(f"{path}: is a folder; give a recipe file, e.g. train/recipes/digits.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: not readable as TOML ({error})") from None


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
