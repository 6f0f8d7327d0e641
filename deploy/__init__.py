"""From a spiking network to a chip's integers: fold, quantise, emulate, prove, replay, price, report."""
