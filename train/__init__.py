"""From an architecture and images to a trained network: objectives, and the one training loop."""
