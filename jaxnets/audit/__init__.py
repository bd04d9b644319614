"""Looks a data set over before it is trained on: what is in it, what is wrong with it, and what a model will be fed."""
