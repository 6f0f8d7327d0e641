"""From a trained ANN to a finetuned spiking network."""
