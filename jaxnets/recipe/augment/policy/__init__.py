"""Augmentation policies: short sequences of ops, drawn for each example and applied at one cost whatever was drawn."""
