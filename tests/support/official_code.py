"""Checkpoints of the official code of arXiv 2311.09266: names and shapes as it saves them, forward passes that read these names."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
Plan = list[int | str]
VGG11: Plan = [64, "A", 128, 256, "A", 512, 512, 512, "A", 512, 512]
VGG11_TINY: Plan = [64, "A", 128, "A", 256, 256, "A", 512, 512, "A", 512, 512]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def norm_keys(name: str, channels: int) -> Shapes:
    keys: Shapes = {f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")}
    return {**keys, f"{name}.num_batches_tracked": ()}


def vgg_keys(plan: Plan, side: int, classes: int, *, bias: bool = False, v_th: bool = False) -> Shapes:
    """models/VGG.py: VGG, or VGG_TIN for the plan with four poolings; dense layers of 4096."""
    keys: Shapes = {}
    index, inside = 0, 3
    for item in plan:
        if isinstance(item, int):
            keys[f"features.{index}.weight"] = (item, inside, 3, 3)
            keys |= {f"features.{index}.bias": (item,)} if bias else {}
            keys |= norm_keys(f"features.{index + 1}", item)
            keys |= {f"features.{index + 2}.v_th": ()} if v_th else {}
            inside = item
        index += 3 if isinstance(item, int) else 1
    tiny = plan.count("A") == 4
    dense = (
        [(2, 4096, 512), (4, classes, 4096)]
        if tiny
        else [(1, 4096, 512 * side**2), (4, 4096, 4096), (7, classes, 4096)]
    )
    for index, outside, inside in dense:
        keys[f"classifier.{index}.weight"] = (outside, inside)
        keys |= {f"classifier.{index}.bias": (outside,)} if bias else {}
        keys |= {f"classifier.{index + 1}.v_th": ()} if v_th and outside == 4096 else {}
    return keys


def resnet_keys(
    widths: tuple[int, int, int] = (16, 32, 64),
    blocks: int = 3,
    classes: int = 10,
    *,
    bias: bool = False,
    v_th: bool = False,
) -> Shapes:
    """models/ResNet.py, in the order in which a block registers its modules."""
    keys: Shapes = {"features.0.weight": (widths[0], 3, 3, 3), **norm_keys("features.1", widths[0])}
    keys |= {"features.2.v_th": ()} if v_th else {}
    index, inside = 3, widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            name = f"features.{index}"
            keys[f"{name}.conv1.weight"] = (width, inside, 3, 3)
            keys[f"{name}.conv2.weight"] = (width, width, 3, 3)
            keys |= norm_keys(f"{name}.bn1", width) | norm_keys(f"{name}.bn2", width)
            keys |= {f"{name}.act1.v_th": (), f"{name}.act2.v_th": ()} if v_th else {}
            keys[f"{name}.convex.comb"] = (2,)
            if inside != width or (stage > 0 and block == 0):
                keys[f"{name}.shortcut.0.weight"] = (width, inside, 1, 1)
                keys |= norm_keys(f"{name}.shortcut.1", width)
            index, inside = index + 1, width
    keys["classifier.1.weight"] = (classes, inside)
    return keys | ({"classifier.1.bias": (classes,)} if bias else {})


def wrn_keys(
    widths: tuple[int, int, int, int] = (16, 64, 128, 256), blocks: int = 2, classes: int = 10, *, v_th: bool = False
) -> Shapes:
    """models/WideResNet.py."""
    keys: Shapes = {"features.0.weight": (widths[0], 3, 3, 3)}
    index, inside = 1, widths[0]
    for width in widths[1:]:
        for _ in range(blocks):
            name = f"features.{index}"
            keys |= norm_keys(f"{name}.bn1", inside)
            keys |= {f"{name}.act1.v_th": ()} if v_th else {}
            keys[f"{name}.conv1.weight"] = (width, inside, 3, 3)
            keys |= norm_keys(f"{name}.bn2", width)
            keys |= {f"{name}.act2.v_th": ()} if v_th else {}
            keys[f"{name}.conv2.weight"] = (width, width, 3, 3)
            keys |= {f"{name}.convShortcut.weight": (width, inside, 1, 1)} if inside != width else {}
            keys[f"{name}.convex.comb"] = (2,)
            index, inside = index + 1, width
    keys |= norm_keys(f"features.{index}", inside)
    keys |= {f"features.{index + 1}.v_th": ()} if v_th else {}
    keys["classifier.1.weight"] = (classes, inside)
    return keys


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random values that keep activations alive; every sum and threshold its own."""
    generator = torch.Generator().manual_seed(seed)

    def value(key: str, shape: tuple[int, ...]) -> Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.tensor(17)
        if len(shape) > 1:
            weight = torch.randn(shape, generator=generator)
            return weight * math.sqrt(2 / weight[0].numel())
        low, high = {"bias": (-0.2, 0.3), "running_mean": (-0.2, 0.2), "v_th": (0.2, 0.6)}.get(
            key.split(".")[-1], (0.3, 1.2)
        )
        return torch.empty(shape).uniform_(low, high, generator=generator)

    return {key: value(key, shape) for key, shape in shapes.items()}


class Official:
    """Their forward pass in plain torch operations on their names; ReLU without timesteps, IF with hard reset with them."""

    def __init__(self, state: Mapping[str, Tensor], time_steps: int | None) -> None:
        self.state, self.steps = state, time_steps

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    def act(self, name: str, x: Tensor) -> Tensor:
        if self.steps is None:
            return torch.relu(x)
        potential, spikes = torch.zeros_like(x[: len(x) // self.steps]), []
        for current in x.chunk(self.steps):
            potential = potential + current
            spikes.append((potential >= self.state[f"{name}.v_th"]).to(x.dtype))
            potential = potential * (1 - spikes[-1])
        return torch.cat(spikes)

    def dense(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def convex(self, name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        comb = self.state[f"{name}.convex.comb"]
        merged: Tensor = shortcut * comb[0] + branch * comb[1]
        return merged

    def logits(self, images: Tensor, body: Callable[["Official", Tensor], Tensor]) -> Tensor:
        x = (images - images.new_tensor(MEAN).view(3, 1, 1)) / images.new_tensor(STD).view(3, 1, 1)
        out = body(self, x.repeat(self.steps or 1, 1, 1, 1))
        return out if self.steps is None else out.unflatten(0, (self.steps, -1)).mean(0)


def vgg_body(plan: Plan) -> Callable[[Official, Tensor], Tensor]:
    def body(net: Official, x: Tensor) -> Tensor:
        index = 0
        for item in plan:
            if item == "A":
                x, index = F.avg_pool2d(x, 2), index + 1
                continue
            x = net.norm(f"features.{index + 1}", net.conv(f"features.{index}", x))
            x, index = net.act(f"features.{index + 2}", x), index + 3
        if plan.count("A") == 4:
            x = net.act("classifier.3", net.dense("classifier.2", F.adaptive_avg_pool2d(x, 1).flatten(1)))
            return net.dense("classifier.4", x)
        x = net.act("classifier.2", net.dense("classifier.1", x.flatten(1)))
        x = net.act("classifier.5", net.dense("classifier.4", x))
        return net.dense("classifier.7", x)

    return body


def resnet_body(net: Official, x: Tensor) -> Tensor:
    x = net.act("features.2", net.norm("features.1", net.conv("features.0", x)))
    for index in range(3, 100):
        name = f"features.{index}"
        if f"{name}.conv1.weight" not in net.state:
            return net.dense("classifier.1", x.mean((2, 3)))
        stride = 2 if f"{name}.shortcut.0.weight" in net.state else 1
        out = net.act(f"{name}.act1", net.norm(f"{name}.bn1", net.conv(f"{name}.conv1", x, stride)))
        out = net.norm(f"{name}.bn2", net.conv(f"{name}.conv2", out))
        short = net.norm(f"{name}.shortcut.1", net.conv(f"{name}.shortcut.0", x, 2)) if stride == 2 else x
        x = net.act(f"{name}.act2", net.convex(name, short, out))
    raise AssertionError


def wrn_body(net: Official, x: Tensor) -> Tensor:
    x = net.conv("features.0", x)
    for index in range(1, 100):
        name = f"features.{index}"
        if f"{name}.conv1.weight" not in net.state:
            x = net.act(f"features.{index + 1}", net.norm(name, x))
            return net.dense("classifier.1", x.mean((2, 3)))
        stride = 2 if f"{name}.convShortcut.weight" in net.state and index > 1 else 1
        first = net.act(f"{name}.act1", net.norm(f"{name}.bn1", x))
        out = net.act(f"{name}.act2", net.norm(f"{name}.bn2", net.conv(f"{name}.conv1", first, stride)))
        out = net.conv(f"{name}.conv2", out)
        is_new = f"{name}.convShortcut.weight" in net.state
        x = net.convex(name, net.conv(f"{name}.convShortcut", first, stride) if is_new else x, out)
    raise AssertionError
