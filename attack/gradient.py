"""White-box L-infinity attacks on images in [0, 1]: the single steps that all named attacks are made of.

`logits` is any differentiable function from images (B, C, H, W) to logits (B, K); the network inside must be in evaluation
mode and contains its own normalisation. Losses are sums over the batch, so one sample's gradient never depends on another.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Logits = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]


def cross_entropy(labels: Tensor) -> Loss:
    """Loss of logits against int64 labels, summed."""
    return lambda logits: F.cross_entropy(logits, labels, reduction="sum")


def divergence_from(clean_logits: Tensor) -> Loss:
    """KL(softmax clean || softmax logits), summed; the clean logits are constants (arXiv 2311.09266 eq. 10).

    Its gradient at the clean image itself is zero: attacks on it must start elsewhere.
    """
    clean = F.log_softmax(clean_logits.detach(), 1)
    return lambda logits: F.kl_div(F.log_softmax(logits, 1), clean, reduction="sum", log_target=True)


def gradient(logits: Logits, images: Tensor, loss: Loss) -> Tensor:
    """d loss / d images; parameters get no gradient."""
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        (result,) = torch.autograd.grad(loss(logits(images)), images)
    return result


def project(images: Tensor, clean: Tensor, eps: float) -> Tensor:
    """Nearest image within eps of `clean` (every pixel) and within [0, 1]."""
    return (clean + (images - clean).clamp(-eps, eps)).clamp(0, 1)


def fgsm(logits: Logits, clean: Tensor, loss: Loss, *, eps: float) -> Tensor:
    """One step of size eps (Goodfellow et al. 2015)."""
    return project(clean + eps * gradient(logits, clean, loss).sign(), clean, eps)


def rfgsm(logits: Logits, clean: Tensor, loss: Loss, *, eps: float, alpha: float, noise: Tensor) -> Tensor:
    """A random step of size alpha, then a gradient step of size eps - alpha (Tramer et al. 2018; arXiv 2311.09266 eq. 12).

    noise: standard normal, the shape of `clean`; only its sign is used. alpha in (0, eps).
    """
    start = (clean + alpha * noise.sign()).clamp(0, 1)
    return project(start + (eps - alpha) * gradient(logits, start, loss).sign(), clean, eps)


def pgd(
    logits: Logits, clean: Tensor, loss: Loss, *, eps: float, steps: int, step_size: float, start: Tensor
) -> Tensor:
    """`steps` signed gradient steps from `start`, each projected (Madry et al. 2018). Returns the last iterate."""
    images = project(start, clean, eps)
    for _ in range(steps):
        images = project(images + step_size * gradient(logits, images, loss).sign(), clean, eps)
    return images
