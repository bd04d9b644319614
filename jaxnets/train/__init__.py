"""A run: its step, its state, its loop, and what they are made of. `jaxnets.train(config, workdir)` trains."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.train.call:train")
