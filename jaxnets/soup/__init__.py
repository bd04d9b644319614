"""Weights of several checkpoints averaged to one model. `jaxnets.soup(runs, out)` does it."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.soup.run:soup")
