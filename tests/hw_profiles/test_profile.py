"""Profiles: what ships is complete and honest, and a mistake in a user's own is named by key and line, whatever it is."""

import random
import re
from importlib.resources import files
from pathlib import Path

import pytest

from hardspike.hw_profiles.profile import Profile, load_profile, parse_profile, profile_names
from hardspike.hw_profiles.toml_line import line_of
from hardspike.snn.errors import FileError, SettingsError

SHIPPED = ("cmos45", "loihi1", "loihi2", "speck", "spinnaker2", "truenorth")


def _text(name: str) -> str:
    return (files("hardspike.hw_profiles") / f"{name}.toml").read_text(encoding="utf-8")


def test_what_ships() -> None:
    assert profile_names() == sorted(SHIPPED)
    profiles = {name: load_profile(name) for name in SHIPPED}
    assert list(profiles["loihi1"].costs) == list(profiles["loihi1"].times) == ["davies2018", "sanafe"]
    assert all(profile.constants for profile in profiles.values())


def test_nothing_unpublished_has_a_price() -> None:
    loihi2, speck = load_profile("loihi2"), load_profile("speck")
    assert not loihi2.costs and not loihi2.times and not speck.costs
    assert [one.cores for one in loihi2.power.measured] == [74, 61]
    assert load_profile("loihi1").costs["davies2018"].synaptic_operation.bound == "min"
    assert load_profile("loihi1").costs["davies2018"].unpriced == ("barrier synchronisation",)
    assert load_profile("loihi1").costs["sanafe"].unpriced == ()
    assert len(load_profile("spinnaker2").costs["keras_spiking"].unpriced) == 3
    all_in = load_profile("truenorth").costs["all_in"]
    assert all_in.includes_static and all_in.message is not None and all_in.message.value == 0


def test_arithmetic_is_no_chip() -> None:
    cmos = load_profile("cmos45")
    assert (cmos.integers, dict(cmos.costs), cmos.cores, dict(cmos.times)) == (None, {}, None, {})
    with pytest.raises(SettingsError, match=r"profile 'cmos45' has no \[numerics\]"):
        _ = cmos.numerics
    text = _text("cmos45") + _text("spinnaker2").split('chip = "SpiNNaker 2"')[1]
    with pytest.raises(SettingsError, match=r"arithmetic: .* does not go with a chip's \[cores\]"):
        parse_profile("mixed", text.encode())


def test_constants_of_every_file_are_kept_with_their_source() -> None:
    for name in SHIPPED:
        tables = re.findall(r"\bvalue = ", _text(name))
        assert len(tables) == len(load_profile(name).constants), name
    entry = load_profile("loihi1").constants["times.davies2018.barrier.1"]
    assert (entry.value, entry.unit, entry.trust) == (465.0, "ns", "B")


OWN = """name = "own"
chip = "a chip"
[cores]
packing = { value = "loihi1", unit = "rule", kind = "structural", bound = "exact", source = "s", trust = "A" }
neurons_per_core = { value = 64, unit = "neuron", kind = "structural", bound = "max", source = "s", trust = "A" }
synapse_words = { value = 100, unit = "word", kind = "structural", bound = "max", source = "s", trust = "A" }
cores_per_chip = { value = 4, unit = "core", kind = "structural", bound = "max", source = "s", trust = "A" }
chips_max = { value = 1, unit = "chip", kind = "structural", bound = "max", source = "s", trust = "A" }
[times.mine]
title = "mine"
synaptic_operation = { value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" }
neuron_update_active = { value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" }
neuron_update_idle = { value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" }
message_in = { value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" }
spike_out = { value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" }
barrier = [
  # a comment with a ] in it
  { tiles = 1, value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" },
  { tiles = 2, value = 1, unit = "ns", kind = "measured", bound = "typ", source = "s", trust = "A" },
]
"""


def test_a_users_own_profile_is_one_more_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN, encoding="utf-8")
    own = load_profile(str(tmp_path / "own.toml"))
    assert own.cores is not None and own.cores.neurons_per_core == 64
    assert own.times["mine"].barrier_ns(2) == 1 and own.costs == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("neurons_per_core =", "neuron_per_core =", "line 5: cores: key 'neuron_per_core' is unknown; did you mean 'neurons_per_core'"),
        ("value = 64", "value = 64.5", "line 5: cores.neurons_per_core: 64.5 neuron is not allowed; give a whole number"),
        ("value = 64", "value = true", "line 5: cores.neurons_per_core: True neuron is not allowed"),
        ("value = 64", "value = -1", "line 5: cores.neurons_per_core: -1 neuron is not allowed; give a whole number from 1"),
        ('"loihi1"', '"loihi3"', "line 4: cores.packing: loihi3 rule is not allowed; give one of loihi1, loihi2, speck"),
        ('unit = "word"', 'unit = "byte"', "line 6: cores.synapse_words: 100 byte is not allowed; give .* in word"),
        ("synapse_words = ", "# ", "line 3: cores: key 'synapse_words' is missing; packing 'loihi1' needs it"),
        ("chips_max = ", "# ", "line 3: cores: key 'chips_max' is missing; needed: chips_max, cores_per_chip, neurons_per_core"),
        ("{ tiles = 2, value = 1", "{ tiles = 2, value = -1", "line 19: times.mine.barrier.1: -1 ns is not allowed"),
        ("{ tiles = 2, value", "{ value", "line 19: times.mine.barrier.1: key 'tiles' is missing"),
        ("{ tiles = 1, value", "{ tiles = 0, value", "line 18: times.mine.barrier.0.tiles: 0 is not allowed"),
        ('title = "mine"', 'titel = "mine"', "line 10: times.mine: key 'titel' is unknown; did you mean 'title'"),
        ('title = "mine"\n', "", "line 9: times.mine: key 'title' is missing"),
        ('chip = "a chip"\n', "", "line 1: profile: key 'chip' is missing; needed: chip, name"),
        ('name = "own"', "name = 3", "line 1: name: 3 is no name"),
        ('kind = "measured", bound = "typ", source = "s", trust = "A" }\nneuron_update_active',
         'kind = "guessed", bound = "typ", source = "s", trust = "A" }\nneuron_update_active',
         "line 11: times.mine.synaptic_operation.kind: kind 'guessed' is unknown; known: derived, fit"),
        ('source = "s", trust = "A" }\nneurons', 'source = " ", trust = "A" }\nneurons', "line 4: cores.packing.source"),
        ('trust = "A" }\nneurons', 'trust = "D" }\nneurons', "line 4: cores.packing.trust: trust 'D' is unknown; known: A, B, C, U"),
        ("value = 64", "value = nan", "line 5: cores.neurons_per_core: nan neuron"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_key_and_line(old: str, new: str, message: str) -> None:
    assert old in OWN
    for text in (OWN.replace(old, new, 1), OWN.replace(old, new, 1).replace("\n", "\r\n")):
        with pytest.raises(SettingsError, match=message) as caught:
            parse_profile("own.toml", text.encode())
        assert "\n" not in str(caught.value)


def test_a_set_that_is_no_table() -> None:
    start = OWN.split("[times.mine]")[0]
    with pytest.raises(SettingsError, match="line 10: times.mine: 3 is not a table"):
        parse_profile("own", f"{start}[times]\nmine = 3\n".encode())
    with pytest.raises(SettingsError, match=r"line 1: times: 3 is not a table; write \[times.name\]"):
        parse_profile("own", f"times = 3\n{start}".encode())


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"a = ",
        b"[a]\n[a]\n",
        b"a = " + b"[" * 100_000,
        b"a = " + b"9" * 10_000,
        b"a" * (1 << 19),
        b'a = "\x00"',
    ],
)
def test_what_is_no_toml_is_a_file_error(content: bytes) -> None:
    with pytest.raises(FileError, match="profile 'own':") as caught:
        parse_profile("own", content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_missing_file_and_a_path_that_is_none() -> None:
    for name in ("nowhere.toml", "a\x00b.toml"):
        with pytest.raises(FileError, match="expected a hardware profile"):
            load_profile(name)
    with pytest.raises(SettingsError, match="hardware profile 'loihi3' is unknown; did you mean 'loihi2'"):
        load_profile("loihi3")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_line_of_every_key(name: str) -> None:
    """Against the line on which a plain search finds it."""
    text = _text(name)
    lines, table = text.split("\n"), ()
    for number, line in enumerate(lines, start=1):
        header = re.fullmatch(r"\[([\w.]+)\]", line)
        key = re.match(r"(\w+) = ", line)
        if header is not None:
            table = tuple(header.group(1).split("."))
            assert line_of(text, table) == number
        elif line.startswith("[["):
            break
        elif key is not None and number % 3 == 0:
            assert line_of(text, (*table, key.group(1))) == number


def _mutated(text: str, rng: random.Random) -> bytes:
    """A profile with one to three injuries: bytes, lines, values, keys, ends."""
    tokens = (
        "-1",
        "1e999",
        "nan",
        "inf",
        "true",
        '""',
        "[]",
        "{}",
        "[[]]",
        '"x"',
        "1979-05-27",
        "0",
        "99999999999999999999",
        "[1, 2.5]",
    )
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                lines[at] = lines[rng.randrange(len(lines))]
            case 1:
                del lines[at]
            case 2:
                lines[at] = re.sub(
                    r"= [^,}\n]+", lambda _: "= " + rng.choice(tokens), lines[at], count=rng.randint(0, 2)
                )
            case 3:
                position = rng.randrange(len(lines[at]) + 1)
                lines[at] = (
                    lines[at][:position]
                    + chr(rng.choice((0, 10, 34, 61, 91, 93, 123, 233, 0x2028)))
                    + lines[at][position:]
                )
            case 4:
                words = re.findall(r"\w+", lines[at])
                if words:
                    lines[at] = lines[at].replace(
                        rng.choice(words), rng.choice(("value", "barrier", "title", "cores", "x")), 1
                    )
            case 5:
                lines = lines[: at + 1]
                lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
            case _:
                lines.insert(
                    at, rng.choice(("[cores]", "[costs.x]", "[[power.measured]]", "barrier = 3", '"""', "x = ["))
                )
        if not lines:
            return b""
    content = "\n".join(lines).encode()
    if rng.random() < 0.05:
        content = content.replace(b"a", b"\xc3", 1)
    return content


def _fuzz(seeds: range) -> dict[str, int]:
    found = {"profile": 0, "settings": 0, "file": 0}
    texts = [_text(name) for name in SHIPPED]
    for seed in seeds:
        rng = random.Random(seed)
        content = _mutated(rng.choice(texts), rng)
        try:
            made = parse_profile("own", content)
        except SettingsError as error:
            assert re.match(r"profile 'own', line \d+: ", str(error)), error
            assert "\n" not in str(error)
            found["settings"] += 1
        except FileError as error:
            assert str(error).startswith("profile 'own': ") and "\n" not in str(error)
            found["file"] += 1
        else:
            assert isinstance(made, Profile)
            found["profile"] += 1
    return found


def test_injured_profiles_give_one_line() -> None:
    assert min(_fuzz(range(150)).values()) > 5


@pytest.mark.slow
def test_many_injured_profiles_give_one_line() -> None:
    assert min(_fuzz(range(150, 2150)).values()) > 100
