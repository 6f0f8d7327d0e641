"""The networks of a run as functions of images on the CPU to logits, by name, each loaded once."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hardspike.attack.gradient import Logits
from hardspike.deploy.backend_classifier import BackendClassifier
from hardspike.deploy.backends import make_backend
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.fake_quantised import FakeQuantised
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network


@dataclass(slots=True)
class RunNetworks:
    """`load` takes a name of `attack.settings.TARGETS`; a network's noise of its own, if any, starts from its seed.

    backend: what the deployed network runs on when it is judged; any other than the emulator has no gradient.
    """

    folder: RunFolder
    backend: str = "emulator"
    _loaded: dict[str, Logits] = field(default_factory=dict)

    @property
    def graph(self) -> ProcessGraph:
        return load_graph(self.folder.graph)

    @property
    def grid(self) -> int:
        """The largest message of the deployed network's input: what its pixels are multiples of."""
        return (1 << self.graph.input.image_bits) - 1

    def load(self, target: str) -> Logits:
        device = self.folder.recipe.device
        make: dict[str, Callable[[], Logits]] = {
            "ann": lambda: load_network(self.folder.ann).to(device).on_cpu_images(),
            "snn": lambda: load_network(self.folder.snn).to(device).on_cpu_images(),
            "quantised": lambda: FakeQuantised(self.graph).eval(),
            "deployed": lambda: Emulator(self.graph),
        }
        make["judged"] = make["deployed"] if self.backend == "emulator" else self._on_backend
        if target not in self._loaded:
            self._loaded[target] = make[target]()
        return self._loaded[target]

    def judged(self, target: str) -> Logits:
        """The same, the deployed network on the backend."""
        return self.load("judged" if target == "deployed" else target)

    def _on_backend(self) -> Logits:
        return BackendClassifier(make_backend(self.backend, self.folder.net), self.graph)
