"""Small random networks for hypothesis: layers of every kind, each on any earlier node that fits it."""

from hypothesis import strategies as st

from hardspike.snn.architecture import (
    INPUT,
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    ImageInput,
    Layer,
    Node,
    Shape,
    Spiking,
    WeightedSum,
)
from hardspike.snn.membrane import NeuronSettings

NEURONS = st.builds(
    NeuronSettings,
    reset=st.sampled_from(["hard", "soft"]),
    order=st.sampled_from(["integrate-first", "fire-first"]),
    strict=st.booleans(),
    initial_potential=st.sampled_from([0.0, 0.3]),
)


def _pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def convolutions(draw: st.DrawFn, channels: int) -> Convolution:
    """For a source of so many channels; it may not fit on its sides."""
    groups = draw(st.sampled_from([g for g in (1, 1, 2, channels) if channels % g == 0]))
    return Convolution(
        out_channels=groups * draw(st.integers(1, 2 if groups > 1 else 4)),
        kernel_size=draw(_pairs(1, 3)),
        stride=draw(_pairs(1, 2)),
        padding=draw(st.one_of(st.just((0, 0)), _pairs(0, 2))),
        dilation=draw(_pairs(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def _layers(draw: st.DrawFn, shape: Shape) -> Layer:
    """Any layer with one source of this shape; it may not fit on its sides."""
    anywhere: list[st.SearchStrategy[Layer]] = [
        st.builds(Spiking, neuron=NEURONS),
        st.builds(Spiking, neuron=NEURONS),
        st.sampled_from([BatchNorm(), Dropout(share=0.5), Flatten()]),
    ]
    if len(shape) == 3:
        on_maps = [convolutions(shape[0]), convolutions(shape[0]), st.builds(AveragePool, kernel_size=_pairs(1, 3))]
        return draw(st.one_of(*anywhere, *on_maps))
    dense = st.builds(Dense, out_features=st.integers(1, 6), bias=st.booleans())
    return draw(st.one_of(*anywhere, dense, dense))


@st.composite
def architectures(draw: st.DrawFn, most: int = 10) -> Architecture:
    """Up to `most` layers on an image of up to 3 x 7 x 7; sums of one to three terms, which may be the same one;

    then perhaps a classifier.
    """
    shape = (draw(st.integers(1, 3)), draw(st.integers(3, 7)), draw(st.integers(3, 7)))
    image = ImageInput(
        shape=shape,
        mean=(0.5, 0.3, 0.4)[: shape[0]],
        std=(0.25, 0.4, 0.2)[: shape[0]],
        bits=draw(st.sampled_from([None, 3])),
        coding=draw(st.sampled_from(["direct", "direct", "poisson"])),
    )
    shapes: dict[str, Shape] = {INPUT: shape}
    nodes: list[Node] = []
    with_time: set[str] = {INPUT} if image.coding == "poisson" else set()
    for index in range(draw(st.integers(2, most))):
        names = list(shapes)
        source = draw(st.sampled_from(names[-2:]))
        equal = [name for name in names if shapes[name] == shapes[source]]
        sources = [source]
        layer: Layer
        if draw(st.integers(0, 3)) == 0:
            sources += draw(st.lists(st.sampled_from(equal), max_size=2))
            layer = WeightedSum(initial=(0.5,) * len(sources), trainable=True)
        else:
            layer = draw(_layers(shapes[source]))
        found = layer.output_shape(shapes[source])
        if min(found) < 1:
            continue
        nodes.append(Node(name=f"n{index}", layer=layer, sources=tuple(sources)))
        shapes[f"n{index}"] = found
        if isinstance(layer, Spiking) or with_time & set(sources):
            with_time.add(f"n{index}")
    if draw(st.booleans()):
        last = list(shapes)[-1]
        nodes.append(Node(name="flat", layer=Flatten(), sources=(last,)))
        nodes.append(Node(name="head", layer=Dense(out_features=3, bias=draw(st.booleans())), sources=("flat",)))
        for name in ("flat", "head"):
            shapes[name] = nodes[-1].layer.output_shape(shapes[last])
            with_time |= {name} if last in with_time else set()
    if not any(isinstance(node.layer, Spiking) for node in nodes):
        nodes.append(Node(name="last", layer=Spiking(neuron=draw(NEURONS)), sources=(list(shapes)[-1],)))
        with_time.add("last")
    # Without neurons on the way to the output there are no steps to sum over.
    readout = draw(st.sampled_from(["mean", "sum"])) if nodes[-1].name in with_time else "mean"
    return Architecture(input=image, nodes=tuple(nodes), readout=readout)
