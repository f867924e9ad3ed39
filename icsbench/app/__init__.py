"""Everything that knows Hydra: from what was typed to the runs of one, of a sweep, or of a plan of studies."""
