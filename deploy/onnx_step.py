"""One timestep of a deployed network as an ONNX model: integers in, integers out, every state explicit.

The model is the definition at the top of process_graph.py, one ONNX operator per operation, and holds no float. What each
integer operation must give is fixed by the ONNX standard, so any conforming runtime computes the chip's numbers:

- Convolutions are `ConvInteger` with uint8 messages (wider ones in digits of 8 bits) and uint8 weights, around zero points.
  Not int8 weights: ONNX Runtime's kernels for uint8 times int8 saturate pairs of products at 16 bits on x86 without VNNI
  (its quantisation guide, section on reduce_range). Not `Conv` in float32, which is exact below 2^24 only where a runtime
  neither splits sums (Winograd) nor rounds inputs (TF32). Partial sums stay within `magnitude_bound`, so within int32.
- Dense layers are `MatMul` in int32. States are int64: a state times a decay takes 36 bits on Loihi.
- decay(x, d) is x * (2^D - d) / 2^D with the integer `Div`, which truncates, so rounds towards zero.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hardspike.convert.onnx_out import IR_VERSION, OPSET
from hardspike.deploy.process_graph import ConvSynapse, DenseSynapse, GraphLayer, ProcessGraph, Synapse, magnitude_bound
from hardspike.snn.architecture import INPUT
from hardspike.snn.atomic import replacing
from hardspike.snn.errors import DoesNotFitError

MESSAGES = "messages"
KIND = "integer timestep"
DIGIT_BITS = 8
INT32_MAX = (1 << 31) - 1


def write_onnx_step(path: Path, graph: ProcessGraph) -> None:
    """Write the model of one timestep, whole or not at all. With B free and [..] the layer's shape, its tensors are

    inputs:
        messages: int64 [B, *input shape], one step's, without constant channels; for coding `current` the bias mantissas.
        LAYER/current, LAYER/potential: int64 [B, ..], what the last step left; before the first step of a sample 0, and
            what the metadata's `initial` say.
    outputs:
        LAYER/spikes: bool [B, ..].
        LAYER/current.next, LAYER/potential.next: int64 [B, ..], the inputs of the next step.
        LAYER/potential.compared: int64 [B, ..], what was compared with the threshold.

    Unit of states: weight / 2^state_shift. After `time_steps` steps the network's output is the last layer's
    `potential.next`, or the sum over steps of its spikes where it fires. The file's metadata say the rest: `kind`, `profile`,
    `time_steps`, `readout`, `output`, and as JSON `input` (the contract of messages), and by layer `initial` and `scales`,
    and `provenance`.

    Raises DoesNotFitError for weights that span more than 255 steps, or sums beyond int32; no profile of ours has them.
    """
    replacement = onnx_step_model(graph).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(replacement)


def onnx_step_model(graph: ProcessGraph) -> onnx.ModelProto:
    """The checked model of `write_onnx_step`."""
    writer = _StepWriter(graph)
    writer.messages()
    for layer in graph.layers:
        writer.layer(layer)
    model = helper.make_model(
        helper.make_graph(writer.nodes, "hardspike step", writer.inputs, writer.outputs, writer.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hardspike",
    )
    helper.set_model_props(model, _metadata(graph))
    onnx.checker.check_model(model, full_check=True)
    return model


def _metadata(graph: ProcessGraph) -> dict[str, str]:
    output = graph.output
    return {
        "kind": KIND,
        "profile": graph.profile,
        "time_steps": str(graph.time_steps),
        "output": f"{output.name}/{'spikes' if output.neurons.spiking else 'potential.next'}",
        "readout": graph.readout,
        "input": json.dumps(asdict(graph.input)),
        "initial": json.dumps({layer.name: layer.neurons.initial for layer in graph.layers}),
        "scales": json.dumps({layer.name: layer.scale for layer in graph.layers}),
        "provenance": json.dumps(graph.provenance),
    }


class _StepWriter:
    """Collects ONNX nodes. A tensor of a layer is called LAYER/what, so names of layers cannot clash with each other's tensors."""

    def __init__(self, graph: ProcessGraph) -> None:
        self.graph, self.numerics = graph, graph.numerics
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        # What each source sends as digits of 8 bits, least first, [B, *source shape] uint8; and what stands for 0 in them.
        self.digits: dict[str, tuple[list[str], int]] = {}

    def constant(self, name: str, value: NDArray[Any] | int, dtype: type = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def add(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def combine(self, operator: str, output: str, value: str, number: int) -> str:
        """operator(value, number), in int64."""
        return self.add(operator, output, value, self.constant(f"{output}.operand", number))

    def state(self, layer: GraphLayer, what: str) -> str:
        info = helper.make_tensor_value_info(f"{layer.name}/{what}", TensorProto.INT64, ["batch", *layer.shape])
        self.inputs.append(info)
        return str(info.name)

    def show(self, layer: GraphLayer, what: str, value: str, kind: int = TensorProto.INT64) -> None:
        name = self.add("Identity", f"{layer.name}/{what}", value)
        self.outputs.append(helper.make_tensor_value_info(name, kind, ["batch", *layer.shape]))

    def messages(self) -> None:
        """The graph's input, and its digits with the constant channels behind the image's own."""
        contract = self.graph.input
        self.inputs.append(helper.make_tensor_value_info(MESSAGES, TensorProto.INT64, ["batch", *contract.shape]))
        value = MESSAGES
        if contract.constant_channels:
            ends = np.zeros(2 * (1 + len(contract.shape)), dtype=np.int64)
            ends[len(contract.shape) + 2] = contract.constant_channels  # behind the last channel
            largest = self.constant(f"{INPUT}/largest", contract.message_max)
            value = self.add("Pad", f"{INPUT}/encoded", value, self.constant(f"{INPUT}/ends", ends), largest)
        zero = -contract.message_min
        if zero:
            value = self.combine("Add", f"{INPUT}/raised", value, zero)
        digits: list[str] = []
        self.digits[INPUT] = digits, zero
        for index in range(-(-contract.message_bits // DIGIT_BITS)):
            digit, name = value, f"{INPUT}/digit{index}"
            if contract.message_bits > DIGIT_BITS:
                digit = self.combine("Div", f"{name}.shifted", digit, 1 << DIGIT_BITS * index)
                digit = self.combine("Mod", f"{name}.rest", digit, 1 << DIGIT_BITS)
            digits.append(self.add("Cast", name, digit, to=TensorProto.UINT8))

    def layer(self, layer: GraphLayer) -> None:
        name, neurons, numerics = layer.name, layer.neurons, self.numerics
        current = self.decayed(f"{name}/current.kept", self.state(layer, "current"), neurons.current_decay)
        if layer.synapses:
            shifted = self.combine("Mul", f"{name}/input", self.accumulated(layer), 1 << numerics.state_shift)
            current = self.wrapped(layer, self.add("Add", f"{name}/current.sum", current, shifted))
            mantissa = self.constant(f"{name}/bias.mantissa", neurons.bias)
        else:  # messages are biases; the current only ever decays
            mantissa = MESSAGES
        bias = self.combine("Mul", f"{name}/bias", mantissa, 1 << neurons.bias_exponent)
        drive = self.add("Add", f"{name}/drive", current, bias)
        before = self.state(layer, "potential")
        reset = self.emptied if neurons.reset_by is None else self.lowered
        if neurons.order == "fire-first":
            compared, fired = before, self.fired(layer, before)
            if neurons.reset_by is None:
                before = reset(layer, fired, before)
            else:
                drive = reset(layer, fired, drive)
            after = self.integrated(layer, before, drive)
        else:
            compared = self.integrated(layer, before, drive)
            fired = self.fired(layer, compared)
            after = reset(layer, fired, compared)
        self.show(layer, "spikes", fired, TensorProto.BOOL)
        self.show(layer, "current.next", current)
        self.show(layer, "potential.next", after)
        self.show(layer, "potential.compared", compared)
        self.digits[name] = [self.add("Cast", f"{name}/sent", fired, to=TensorProto.UINT8)], 0

    def integrated(self, layer: GraphLayer, potential: str, drive: str) -> str:
        name, top = f"{layer.name}/potential", self.numerics.state_max
        kept = self.decayed(f"{name}.kept", potential, layer.neurons.potential_decay)
        driven = self.add("Add", f"{name}.driven", kept, drive)
        ends = [self.constant(f"{name}.{end}", value) for end, value in (("min", -top), ("max", top))]
        return self.add("Clip", f"{name}.clipped", driven, *ends)

    def fired(self, layer: GraphLayer, potential: str) -> str:
        # A readout cannot exceed the largest potential, so it never fires.
        neurons, numerics = layer.neurons, self.numerics
        threshold = neurons.threshold << numerics.state_shift if neurons.spiking else numerics.state_max
        return self.combine("Greater", f"{layer.name}/fired", potential, threshold)

    def emptied(self, layer: GraphLayer, fired: str, potential: str) -> str:
        """The hard reset."""
        return self.add("Where", f"{layer.name}/emptied", fired, self.constant(f"{layer.name}/nothing", 0), potential)

    def lowered(self, layer: GraphLayer, fired: str, value: str) -> str:
        """The soft reset, of a potential or of what is added to it."""
        assert layer.neurons.reset_by is not None
        spikes = self.add("Cast", f"{layer.name}/spikes.whole", fired, to=TensorProto.INT64)
        subtracted = layer.neurons.reset_by << self.numerics.state_shift
        return self.add(
            "Sub", f"{layer.name}/lowered", value, self.combine("Mul", f"{layer.name}/lost", spikes, subtracted)
        )

    def decayed(self, name: str, state: str, decay: int) -> str:
        """sign(x) * ((|x| * (2^D - decay)) >> D)."""
        product = self.combine("Mul", f"{name}.product", state, self.numerics.decay_one - decay)
        return self.combine("Div", name, product, self.numerics.decay_one)

    def wrapped(self, layer: GraphLayer, current: str) -> str:
        """Once around, into (-2^(B-1), 2^(B-1)]."""
        half, name = self.numerics.state_max + 1, f"{layer.name}/current"
        lower = self.combine("Sub", f"{name}.lowered", current, 2 * half)
        higher = self.combine("Add", f"{name}.raised", current, 2 * half)
        too_high = self.combine("Greater", f"{name}.too_high", current, half)
        too_low = self.combine("LessOrEqual", f"{name}.too_low", current, -half)
        below = self.add("Where", f"{name}.below", too_high, lower, current)
        return self.add("Where", f"{name}.wrapped", too_low, higher, below)

    def accumulated(self, layer: GraphLayer) -> str:
        """Sum over synapses and digits of weight * message, int64."""
        terms = []
        for number, synapse in enumerate(layer.synapses):
            name = f"{layer.name}/synapse{number}"
            unit = self.weight(name, layer, synapse)
            digits, zero = self.digits[synapse.source]
            for index, digit in enumerate(digits):
                term = f"{name}.digit{index}"
                if isinstance(synapse, ConvSynapse):
                    sums = self.convolution(term, name, digit, zero, synapse)
                else:
                    sums = self.product(term, name, digit, zero)
                wide = self.add("Cast", f"{term}.wide", sums, to=TensorProto.INT64)
                terms.append(self.combine("Mul", f"{term}.weighed", wide, unit << DIGIT_BITS * index))
        total = terms[0]
        for number, term in enumerate(terms[1:], start=1):
            total = self.add("Add", f"{layer.name}/accumulated{number}", total, term)
        return total

    def weight(self, name: str, layer: GraphLayer, synapse: Synapse) -> int:
        """Store a synapse's weights; returns what the sums over the stored ones must be multiplied by."""
        reach = magnitude_bound(synapse, self.graph.messages_max(synapse.source))
        if reach > INT32_MAX:
            raise DoesNotFitError(
                f"layer '{layer.name}': synaptic input could reach {reach}, beyond the {INT32_MAX} of ONNX's integer products; "
                "use a profile with at most 32 state bits"
            )
        weight = synapse.weight.astype(np.int64)
        if isinstance(synapse, DenseSynapse):
            self.constant(f"{name}.weight", weight.T, np.int32)
            return 1
        # Weights of mixed signs are even at 8 bits, so in units of 2 they fit uint8 around a zero point.
        unit = max(int(np.gcd.reduce(weight, axis=None)), 1)
        low, high = min(int(weight.min()) // unit, 0), max(int(weight.max()) // unit, 0)
        if high - low > 255:
            raise DoesNotFitError(
                f"layer '{layer.name}': weights {weight.min()}..{weight.max()} span {high - low} steps of {unit}; "
                "ONNX's ConvInteger holds 255; use fewer weight bits"
            )
        self.constant(f"{name}.weight", weight // unit - low, np.uint8)
        self.constant(f"{name}.zero", -low, np.uint8)
        return unit

    def convolution(self, output: str, name: str, digit: str, zero: int, synapse: ConvSynapse) -> str:
        return self.add(
            "ConvInteger",
            output,
            digit,
            f"{name}.weight",
            self.constant(f"{output}.zero", zero, np.uint8),
            f"{name}.zero",
            kernel_shape=synapse.weight.shape[2:],
            strides=synapse.stride,
            pads=synapse.padding * 2,
            dilations=synapse.dilation,
            group=synapse.groups,
        )

    def product(self, output: str, name: str, digit: str, zero: int) -> str:
        flat = self.add("Flatten", f"{output}.flat", digit, axis=1)
        whole = self.add("Cast", f"{output}.messages", flat, to=TensorProto.INT32)
        if zero:
            whole = self.add("Sub", f"{output}.signed", whole, self.constant(f"{output}.zero", zero, np.int32))
        return self.add("MatMul", output, whole, f"{name}.weight")
