"""Additive metrics: sums by name, with the mask applied, divided once at the end; alike in training and evaluation."""
