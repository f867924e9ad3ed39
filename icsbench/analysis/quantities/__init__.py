"""Curves and numbers per run, computed from its record."""
