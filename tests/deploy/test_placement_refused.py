"""Networks that a chip does not hold, named with what is too much; and chips with rules of their own, up to their limits."""

from dataclasses import replace

import numpy as np
import pytest
from placed_graphs import conv, dense, layered_graph

from hardspike.deploy.placement import place
from hardspike.deploy.process_graph import DenseSynapse, ProcessGraph
from hardspike.hw_profiles.profile import Profile, load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError, SettingsError

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
assert LOIHI1.cores is not None
SMALL_SYSTEM = replace(LOIHI1, cores=replace(LOIHI1.cores, neurons_per_core=1, cores_per_chip=1, chips_max=2))


@pytest.mark.parametrize(
    ("graph", "profile", "message"),
    [
        (layered_graph((5000,), ("out", None, dense(INPUT, 3, 5000))), LOIHI1,
         "layer 'out': one neuron on a core of its own needs 5000 axons in, over 4096 .loihi1: cores.axons_in.; make the layer before"),
        (layered_graph((12001,), ("out", None, dense(INPUT, 3, 12001))), LOIHI2,
         "layer 'out': one neuron .* needs 12001 synapse words, over 12000 .loihi2: cores.synapse_words."),
        (layered_graph((9,), ("out", None, dense(INPUT, 3, 9))), SMALL_SYSTEM,
         "network: 3 cores on 3 chips, over 2 .loihi1: cores.chips_max.; layer 'out' takes 3"),
        (layered_graph((300,), ("out", None, dense(INPUT, 3, 300))), load_profile("truenorth"),
         "layer 'out': 21 different weights, over 4 .truenorth: cores.axon_types."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(graph: ProcessGraph, profile: Profile, message: str) -> None:
    with pytest.raises(DoesNotFitError, match=message):
        place(graph, profile, check_messages=False)


def test_messages_the_chip_does_not_send() -> None:
    graph = layered_graph((9,), ("out", None, dense(INPUT, 3, 9)))
    for name in ("loihi1", "speck", "truenorth"):
        with pytest.raises(DoesNotFitError, match="layer 'input': 4-bit graded messages exceed 1"):
            place(graph, load_profile(name))
    assert len(place(graph, LOIHI2).cores) == 1
    signed = layered_graph((1, 3, 3), ("out", None, conv(INPUT, 3, 1)), coding="signed")
    for name in ("loihi1", "speck"):
        with pytest.raises(DoesNotFitError, match=f"layer 'input': signed spikes need 2 message bits, over 1 .{name}:"):
            place(signed, load_profile(name))
        assert len(place(signed, load_profile(name), check_messages=False).cores) == 1
    assert len(place(signed, LOIHI2).cores) == 1


@pytest.mark.parametrize("name", ["spinnaker2", "cmos45"])
def test_a_profile_without_a_rule_places_nothing(name: str) -> None:
    graph = layered_graph((9,), ("out", None, dense(INPUT, 3, 9)))
    with pytest.raises(SettingsError, match=f"profile '{name}' says not how its cores are filled"):
        place(graph, load_profile(name))


def test_speck_gives_each_layer_a_core_that_holds_it() -> None:
    image = (2, 32, 32)
    layers = [
        ("a", None, conv(INPUT, 16, 2, padding=(1, 1))),
        ("b", None, conv("a", 64, 16, stride=(2, 2), padding=(1, 1))),
        ("c", None, conv("b", 64, 64, stride=(2, 2), padding=(1, 1))),
        ("out", None, dense("c", 10, 64 * 64)),
    ]
    made = place(layered_graph(image, *layers, coding="binary"), load_profile("speck"))
    # kernel c * 2^(ceil log2 9 + ceil log2 f), neurons f * 2^(2 ceil log2 side); the last layer is a convolution of 8 x 8.
    assert [layer.largest.synapse_words for layer in made.layers] == [2 * 2**8, 16 * 2**10, 64 * 2**10, 64 * 2**10]
    assert [layer.largest.neurons for layer in made.layers] == [16 * 2**10, 64 * 2**8, 64 * 2**6, 10]
    numbers = [core.number for core in made.cores]
    assert len(set(numbers)) == 4 and set(numbers[2:]) == {5, 6}  # only two cores have that much kernel memory
    again = [*layers[:3], ("d", None, conv("c", 64, 64, padding=(1, 1))), ("out", None, dense("d", 10, 64 * 64))]
    with pytest.raises(DoesNotFitError, match=r"layer 'out': only cores \[5, 6\] hold it, and other layers need them"):
        place(layered_graph(image, *again, coding="binary"), load_profile("speck"))
    large, last = conv("a", 128, 64, padding=(1, 1)), dense("b", 2, 128 * 32 * 32)
    wide = [("a", None, conv(INPUT, 64, 2, padding=(1, 1))), ("b", None, large), ("out", None, last)]
    with pytest.raises(
        DoesNotFitError, match=r"layer 'b': 131072 words of kernel memory, over 65536 of the largest core"
    ):
        place(layered_graph(image, *wide, coding="binary"), load_profile("speck"))


def test_truenorth_takes_few_weights_and_one_destination() -> None:
    truenorth = load_profile("truenorth")
    positive = DenseSynapse(source=INPUT, weight=np.full((300, 200), 2, np.int32))
    made = place(layered_graph((200,), ("out", None, positive), coding="binary"), truenorth)
    assert [core.demand.neurons for core in made.cores] == [150, 150] and made.layers[0].largest.axons_in == 200
    two_signs = np.where(np.arange(9 * 200).reshape(9, 200) % 2, 2, -2).astype(np.int32)
    with pytest.raises(DoesNotFitError, match=r"layer 'out': one neuron .* needs 400 axons in, over 256"):
        place(layered_graph((200,), ("out", None, replace(positive, weight=two_signs)), coding="binary"), truenorth)
    reader = DenseSynapse(source="a", weight=two_signs[:, :9])
    with pytest.raises(DoesNotFitError, match=r"layer 'a': each neuron would send to 2 axons, over 1 .truenorth"):
        first = replace(positive, weight=positive.weight[:9])
        place(layered_graph((200,), ("a", None, first), ("out", None, reader), coding="binary"), truenorth)
    many = (2 * np.arange(-4, 5)).astype(np.int32).repeat(200).reshape(9, 200)
    with pytest.raises(DoesNotFitError, match=r"layer 'out': 8 different weights, over 4 .truenorth: cores.axon_types"):
        place(layered_graph((200,), ("out", None, replace(positive, weight=many)), coding="binary"), truenorth)
