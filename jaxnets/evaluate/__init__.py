"""Evaluation of a finished or running run, and its report. `jaxnets.evaluate(workdir)` evaluates."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.evaluate.run:evaluate")
