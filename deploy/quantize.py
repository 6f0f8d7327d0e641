"""Folded float layers to the profile's integers: the input's form, then each layer's scale (layer_scale.py)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from hardspike.deploy.fold import FoldedLayer, FoldedNetwork, FoldedSynapse
from hardspike.deploy.layer_scale import LayerFit, LayerScaler
from hardspike.deploy.process_graph import GraphLayer, InputContract, PoissonCode, ProcessGraph, weight_step
from hardspike.deploy.weight_range import parse_scale_rule
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError

Fitted = tuple[GraphLayer, LayerFit]


def quantize_network(
    folded: FoldedNetwork,
    profile: Profile,
    *,
    weight_bits: int = 8,
    input_bits: int = 8,
    scale: str = "max",
    overflow: str = "proven",
    provenance: dict[str, str] | None = None,
) -> tuple[ProcessGraph, list[LayerFit]]:
    """Integers for a folded network.

    Args:
        input_bits: of a graded pixel, unless the network itself rounds its images to fewer.
        scale: `max`, `percentile:P` or `search` (weight_range.py).
        overflow: `proven`, no input can make a current wrap; `counted`, scales are not lowered for that (overflow.py counts).

    Raises DoesNotFitError, naming layer, value, limit, profile key and remedy, for what the profile cannot hold.
    """
    numerics = profile.numerics
    if weight_bits not in numerics.weight_bits:
        allowed = ", ".join(map(str, sorted(numerics.weight_bits)))
        raise DoesNotFitError(
            f"layer '{folded.layers[0].name}': {weight_bits}-bit weights are not among {allowed} "
            f"({profile.name}: numerics.weight_bits); choose one of these"
        )
    for layer in folded.layers:
        _check_neuron(layer, profile)
    rule = parse_scale_rule(scale)

    contracts = _contracts(folded, profile, input_bits, weight_bits)
    if contracts[0].poisson is not None and contracts[0].coding == "binary":
        folded = on_two_channels(folded)

    def fit(layer: FoldedLayer, contract: InputContract) -> Fitted:
        proven = overflow == "proven"
        return LayerScaler(layer, folded, profile, contract, weight_bits=weight_bits, rule=rule, proven=proven).fit()

    first = next(layer for layer in folded.layers if any(s.source == INPUT for s in layer.synapses))
    contract = _best(contracts, lambda contract: fit(first, contract))
    fitted = [fit(layer, contract) for layer in folded.layers]
    graph = ProcessGraph(
        input=contract,
        layers=tuple(layer for layer, _ in fitted),
        time_steps=folded.time_steps,
        numerics=numerics,
        profile=profile.name,
        weight_bits=weight_bits,
        readout=folded.readout,
        provenance=provenance or {},
    )
    return graph, [report for _, report in fitted]


def _check_neuron(layer: FoldedLayer, profile: Profile) -> None:
    numerics = profile.numerics
    if layer.neuron is not None and layer.neuron.reset not in (*numerics.resets, *numerics.microcode):
        raise DoesNotFitError(
            f"layer '{layer.name}': reset '{layer.neuron.reset}' is not among {', '.join(numerics.resets)} "
            f"({profile.name}: numerics.resets); train with one of these resets"
        )


def _contracts(folded: FoldedNetwork, profile: Profile, input_bits: int, weight_bits: int) -> list[InputContract]:
    """The forms the input may have; more than one where constant channels may or may not help."""
    image = folded.input
    if image.coding == "poisson":
        code = PoissonCode(mean=image.mean, std=image.std, rate=image.poisson_rate)
        if profile.numerics.message_bits_max > 1:
            return [InputContract(shape=image.shape, coding="signed", message_bits=1, poisson=code)]
        channels, *sides = image.shape
        return [InputContract(shape=(2 * channels, *sides), coding="binary", message_bits=1, poisson=code)]
    bits = image.bits or input_bits
    # A constant channel would belong to one group only.
    grouped = any(s.groups > 1 for layer in folded.layers for s in layer.synapses if s.source == INPUT)
    counts = (0,) if grouped else (0, 1, _constant_channels(bits, weight_bits, profile))
    return [
        InputContract(shape=image.shape, coding="graded", message_bits=bits, constant_channels=count)
        for count in dict.fromkeys(counts)
    ]


def _constant_channels(message_bits: int, weight_bits: int, profile: Profile) -> int:
    """How many it takes until two steps of a weight, times the last one's message, are within the bias mantissa."""
    numerics, count = profile.numerics, 1
    steps = 2 * weight_step(True, numerics, weight_bits)
    while ((1 << message_bits) - 1 >> count - 1) * steps > numerics.bias_mantissa_max and count < message_bits:
        count += 1
    return count


def _best(contracts: Sequence[InputContract], fit: Callable[[InputContract], Fitted]) -> InputContract:
    """The contract with the largest scale. Raises the last one's DoesNotFitError when none fits."""
    scales: dict[InputContract, float] = {}
    for contract in contracts:
        try:
            scales[contract] = fit(contract)[1].scale
        except DoesNotFitError as error:
            failed = error
    if not scales:
        raise failed
    return max(scales, key=lambda contract: scales[contract])


def on_two_channels(folded: FoldedNetwork) -> FoldedNetwork:
    """The same network reading positive and negative spikes apart: weights w on the first half of the channels, -w on the second."""
    layers = tuple(replace(layer, synapses=tuple(map(_doubled, layer.synapses))) for layer in folded.layers)
    return replace(folded, layers=layers)


def _doubled(synapse: FoldedSynapse) -> FoldedSynapse:
    if synapse.source != INPUT:
        return synapse
    weight = synapse.weight
    if synapse.groups > 1:  # the halves of a group would not be neighbours
        outputs, inputs = len(weight) // synapse.groups, weight.shape[1]
        whole = weight.new_zeros(len(weight), inputs * synapse.groups, *weight.shape[2:])
        for group in range(synapse.groups):
            rows, columns = (slice(group * size, (group + 1) * size) for size in (outputs, inputs))
            whole[rows, columns] = weight[rows]
        weight = whole
    return replace(synapse, weight=torch.cat([weight, -weight], dim=1), groups=1)
