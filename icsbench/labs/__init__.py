"""Studies without a training loop of their own: theory evaluated on real layers and batches, or in small models."""
