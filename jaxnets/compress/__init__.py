"""A trained network made smaller: pruned, and trained on. `jaxnets.compress(run, out, method=…)` does it."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.compress.run:compress")
