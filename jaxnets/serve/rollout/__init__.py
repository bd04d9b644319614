"""How a new model takes over a name: beside the old one, for a growing share of the requests, and then for all."""
