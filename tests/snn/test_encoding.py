"""Poisson coding and k-bit images: what is sent, how gradients pass, and that a seed fixes the spikes."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from small_networks import FLAT, conv
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.architecture import Architecture, Dense, ImageInput, Spiking, chain
from hardspike.snn.encoding import NoiseSource, poisson_spikes, quantised
from hardspike.snn.errors import SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

HALF = ImageInput(shape=(2, 6, 5), mean=(0.5, 0.5), std=(0.5, 0.5), coding="poisson")
STEPS = 7
SOFT = NeuronSettings(reset="soft", leak=0.9)
LAYERS = [
    ("conv", conv(4)),
    ("spike1", Spiking(neuron=SOFT)),
    ("deep", conv(3)),
    ("spike2", Spiking(neuron=SOFT)),
    *FLAT,
    ("out", Dense(out_features=5, bias=True)),
]


def _poisson(architecture: Architecture | None = None, steps: int | None = STEPS) -> SpikingNetwork:
    return SpikingNetwork(architecture or chain(HALF, LAYERS), steps).double().eval()


def _images(count: int = 3) -> Tensor:
    return torch.rand(count, *HALF.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9, 1.0, 2.0])
def test_mean_of_spikes_approaches_the_clipped_pixel(rate: float) -> None:
    values, steps = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64), 20_000
    mean = poisson_spikes(values, _uniform(steps, len(values)), rate).mean(0)
    expected = (rate * values).clamp(-1, 1)
    error = (expected.abs() * (1 - expected.abs()) / steps).sqrt()
    assert ((mean - expected).abs() <= 4.5 * error).all()


def test_a_pixel_fires_where_the_draw_is_at_most_its_rate() -> None:
    values = torch.tensor([0.5, -0.5, 0.0, 2.0, -2.0], dtype=torch.float64)
    below, at = torch.tensor(0.25, dtype=torch.float64).nextafter(torch.tensor(0.0).double()), 0.25
    above = torch.tensor(0.25, dtype=torch.float64).nextafter(torch.tensor(1.0).double())
    draws = torch.stack([torch.full((5,), float(u), dtype=torch.float64) for u in (below, at, above)])
    spikes = poisson_spikes(values, draws, 0.5)
    assert spikes.tolist() == [[1, -1, 0, 1, -1], [1, -1, 0, 1, -1], [0, 0, 0, 1, -1]]
    assert poisson_spikes(values, torch.zeros(1, 5).double(), 0.5).tolist() == [[1, -1, 0, 1, -1]]  # no sign, no spike


def test_each_step_passes_its_gradient_unchanged_to_the_pixel() -> None:
    values = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64).requires_grad_(True)
    upstream = _uniform(STEPS, 8) - 0.5
    (gradient,) = torch.autograd.grad((upstream * poisson_spikes(values, _uniform(STEPS, 8), 0.5)).sum(), values)
    torch.testing.assert_close(gradient, upstream.sum(0), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_network_gradient_is_the_snn_crafted_one(rate: float) -> None:
    """ECCV 2020, Alg. 1: G, the sum over steps of dJ / d(current of the first neurons), correlated with rot180(W1).

    The network behind that current is run again from the same spikes, so that G is a gradient of its own computation.
    """
    net = _poisson(chain(replace(HALF, poisson_rate=rate), LAYERS))
    labels, images = torch.tensor([0, 3, 2]), _images().requires_grad_(True)
    state = net.noise.generator.get_state()
    loss = F.cross_entropy(net(images), labels)
    (found,) = torch.autograd.grad(loss, images)

    net.noise.generator.set_state(state)
    normalised = (images.detach() - 0.5) / 0.5
    draws = torch.rand((STEPS, *normalised.shape), generator=net.noise.generator, dtype=torch.float64)
    spikes = ((draws <= rate * normalised.abs()) * normalised.sign()).flatten(0, 1)
    weight = net.get_parameter("layers.conv.weight").detach()
    current = F.conv2d(spikes, weight, padding=1).requires_grad_(True)
    value = current
    for name in list(net.layers)[1:]:
        module = net.layers[name]
        of_steps = value.unflatten(0, (STEPS, -1))
        value = module(of_steps, STEPS).flatten(0, 1) if name in net.neurons() else module(value)
    crafted_loss = F.cross_entropy(value.unflatten(0, (STEPS, -1)).mean(0), labels)
    torch.testing.assert_close(crafted_loss, loss, rtol=1e-13, atol=0)
    (of_current,) = torch.autograd.grad(crafted_loss, current)
    summed = of_current.unflatten(0, (STEPS, -1)).sum(0)
    crafted = F.conv2d(summed, weight.rot90(2, (2, 3)).transpose(0, 1), padding=1)
    torch.testing.assert_close(found * 0.5, crafted, rtol=1e-11, atol=1e-15)  # d normalised / d image = 1 / 0.5
    assert (found != 0).any() and torch.equal(found.sign(), crafted.sign())


def test_equal_generator_states_give_equal_logits() -> None:
    net, images = _poisson(), _images()
    state = net.noise.generator.get_state()
    first, second = net(images), net(images)
    assert not torch.equal(first, second)
    net.noise.generator.set_state(state)
    assert torch.equal(net(images), first) and torch.equal(net(images), second)
    assert torch.equal(_poisson()(images), first)
    assert not torch.equal(SpikingNetwork(net.architecture, STEPS, seed=1).double().eval()(images), first)


def test_a_copy_continues_from_the_same_state_on_its_own() -> None:
    net, images = _poisson(), _images()
    net(images)
    copy = deepcopy(net)
    following = net(images)
    net(images)
    assert torch.equal(copy(images), following)


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    _poisson()(_images())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_timesteps_the_analog_image_goes_in() -> None:
    net, images = _poisson(steps=None), _images()
    direct = SpikingNetwork(chain(replace(HALF, coding="direct"), LAYERS), None).double().eval()
    direct.load_state_dict(net.state_dict())
    state = net.noise.generator.get_state()
    assert torch.equal(net(images), direct(images)) and torch.equal(net(images), net(images))
    assert torch.equal(net.noise.generator.get_state(), state)


def test_first_neurons_receive_new_spikes_at_each_step() -> None:
    net, images = _poisson(), _images()
    current = net.input_current(images, "spike1")
    assert current.shape == (STEPS, 3, 4, 6, 5) and all(not torch.equal(current[0], later) for later in current[1:])


@pytest.mark.parametrize("bits", range(1, 9))
def test_quantised_images_lie_on_the_grid_of_their_bits(bits: int) -> None:
    top = 2**bits - 1
    levels = torch.arange(top + 1, dtype=torch.float64) / top
    assert torch.equal(quantised(levels, bits), levels)
    pixels = torch.arange(256, dtype=torch.float64) / 255
    rounded = quantised(pixels, bits)
    assert ((rounded[:, None] == levels).any(1)).all() and len(rounded.unique()) == top + 1
    assert ((rounded - pixels).abs() <= (levels - pixels[:, None]).abs().min(1).values + 1e-15).all()  # the nearest one
    below, above = levels + 0.49 / top, levels + 0.51 / top
    assert torch.equal(quantised(below[:-1], bits), levels[:-1]) and torch.equal(
        quantised(above[:-1], bits), levels[1:]
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_quantisation_passes_gradients_unchanged(bits: int) -> None:
    pixels = torch.rand(40, generator=torch.Generator().manual_seed(bits)).requires_grad_(True)
    upstream = torch.linspace(-2, 2, 40)
    (gradient,) = torch.autograd.grad((upstream * quantised(pixels, bits)).sum(), pixels)
    assert torch.equal(gradient, upstream)


@pytest.mark.parametrize("steps", [None, 3])
def test_network_rounds_images_before_it_normalises_them(steps: int | None) -> None:
    rounding = replace(HALF, bits=2, coding="direct")
    net = _poisson(chain(rounding, LAYERS), steps)
    plain = _poisson(chain(replace(rounding, bits=None), LAYERS), steps)
    images = _images().requires_grad_(True)
    rounded = (images.detach() * 3).round().div(3).requires_grad_(True)
    assert torch.equal(net(images), plain(rounded))
    (found,) = torch.autograd.grad(net(images).square().sum(), images)
    (expected,) = torch.autograd.grad(plain(rounded).square().sum(), rounded)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("field", "value"), [("bits", 0), ("bits", 17), ("poisson_rate", 0.0), ("coding", "rank")])
def test_impossible_inputs_are_refused(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"input.{field} = {value!r} is not allowed; use") as caught:
        replace(HALF, **{field: value})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_seed_fixes_the_draws_in_the_dtype_asked_for() -> None:
    for dtype in (torch.float32, torch.float64):
        drawn = NoiseSource(4).uniform((1000,), torch.zeros(1, dtype=dtype))
        again = NoiseSource(4).uniform((1000,), torch.zeros(1, dtype=dtype))
        assert drawn.dtype == dtype and torch.equal(drawn, again) and 0 <= float(drawn.min()) <= float(drawn.max()) < 1
