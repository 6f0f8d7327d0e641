"""What an adversary does to images in [0, 1], and what a network is worth then. Works on any callable that gives logits."""
