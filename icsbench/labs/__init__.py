"""Studies without a training loop: theory evaluated on real layers and real batches."""
