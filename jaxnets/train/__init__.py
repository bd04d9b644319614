"""A run: its step, its state, its loop, and what they are made of."""
