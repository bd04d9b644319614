"""Weights that others trained: reading their files."""
