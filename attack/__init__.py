"""What an adversary does to images in [0, 1], and what a classifier is worth then. Works on any callable that gives logits.

from hardspike import attack
result = attack.evaluate(model, images, labels, suite="standard", eps=8 / 255)
print(result)
"""

from hardspike.attack.robustness import Robustness, evaluate

__all__ = ["Robustness", "evaluate"]
