"""Losses of images in [0, 1] and their gradients: what all white-box attacks are made of.

`logits` is any differentiable function from images (B, C, H, W) to logits (B, K); the network inside must be in evaluation
mode and contains its own normalisation. Losses are per sample, so one sample's gradient never depends on another.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.errors import SettingsError

Logits = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]


def cross_entropy(labels: Tensor) -> Loss:
    """-log softmax of the label, per sample [B]; labels int64 [B]."""
    return lambda logits: F.cross_entropy(logits, labels, reduction="none")


def divergence_from(clean_logits: Tensor) -> Loss:
    """KL(softmax clean || softmax logits) per sample; the clean logits are constants (arXiv 2311.09266 eq. 10).

    Its gradient at the clean image itself is zero: attacks on it must start elsewhere.
    """
    clean = F.log_softmax(clean_logits.detach(), 1)
    return lambda logits: F.kl_div(F.log_softmax(logits, 1), clean, reduction="none", log_target=True).sum(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus that of the label, per sample: positive where the class is wrong."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -float("inf")).amax(1)
    return others - own


def logits_ratio(labels: Tensor) -> Loss:
    """DLR loss (Croce & Hein 2020 eq. 6): margin over the gap between largest and third logit; needs three classes or more."""

    def loss(logits: Tensor) -> Tensor:
        if logits.shape[1] < 3:
            raise SettingsError(
                f"attack: the DLR loss needs three classes, the model has {logits.shape[1]}; use the cross entropy (apgd-ce)"
            )
        ordered = logits.sort(1, descending=True).values
        return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)

    return loss


def targeted_ratio(labels: Tensor, targets: Tensor) -> Loss:
    """Targeted DLR loss (Croce & Hein 2020 eq. 7) towards `targets`, int64 [B]; needs four classes or more."""

    def loss(logits: Tensor) -> Tensor:
        ordered = logits.sort(1, descending=True).values
        own, target = logits.gather(1, labels[:, None])[:, 0], logits.gather(1, targets[:, None])[:, 0]
        return (target - own) / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + 1e-12)

    return loss


def value_and_gradient(logits: Logits, images: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, K), losses [B] and d loss / d images at `images`; parameters get no gradient."""
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        output = logits(images)
        losses = loss(output)
        if not losses.requires_grad:
            raise SettingsError(
                "model: its logits have no gradient; name only attacks that need none, e.g. square1000, or give a differentiable model"
            )
        (result,) = torch.autograd.grad(losses.sum(), images)
    return output.detach(), losses.detach(), result


def gradient(logits: Logits, images: Tensor, loss: Loss) -> Tensor:
    """d loss / d images; parameters get no gradient."""
    return value_and_gradient(logits, images, loss)[2]
