"""What can be chosen for an analysis; each says which of these it reads."""

from dataclasses import dataclass

from hardspike.deploy.replay import BACKENDS
from hardspike.snn.ranges import require


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyseOptions:
    """images: test images, from the first. eps: L-infinity budget in units of [0, 1]; None for the recipe's largest.

    seed: of all random numbers. backend: what the deployed network runs on where its spikes are looked at.
    layers: neuron layers by name, empty for all. sam: the equation of the paper (`paper`) or what its published code computes
    (`code`). gamma: of the spike activation map, per timestep. epochs: of the trainings an analysis makes.
    """

    images: int
    eps: float | None = None
    seed: int = 0
    backend: str = "emulator"
    layers: tuple[str, ...] = ()
    sam: str = "paper"
    gamma: float = 0.5
    epochs: int = 1

    def __post_init__(self) -> None:
        require("images", self.images, self.images >= 1, "use 1 or more")
        require("eps", self.eps, self.eps is None or 0 < self.eps < 1, "give a value in (0, 1)")
        require("seed", self.seed, 0 <= self.seed < 2**31, "choose from 0 to 2147483647")
        require("backend", self.backend, self.backend in BACKENDS, f"use {', '.join(BACKENDS)}")
        require("sam", self.sam, self.sam in ("paper", "code"), "use paper or code")
        require("gamma", self.gamma, self.gamma >= 0, "use 0 or more")
        require("epochs", self.epochs, self.epochs >= 0, "use 0 (no training) or more")
