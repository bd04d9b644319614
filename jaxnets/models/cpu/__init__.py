"""The forms of layers that XLA runs fast on a CPU; the values are those of the plain ones."""
