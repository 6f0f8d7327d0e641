"""The ground floor: neurons, surrogate gradients, architectures, the one network, data sets, checkpoints, errors."""
