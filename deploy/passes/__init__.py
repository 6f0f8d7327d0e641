"""The float64 front end: a trained network as a graph that can be run, and small rewritings of it, listed in `table.PASSES`."""
