"""Image classifiers as functional Linen modules."""
