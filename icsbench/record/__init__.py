"""The record of a run: the only interface between the half that writes and the half that reads."""
