"""hardspike: robust spiking networks, from training to the integers of a Loihi-style chip, with every step proven."""

__version__ = "0.1.0"
