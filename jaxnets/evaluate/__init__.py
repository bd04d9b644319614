"""Evaluation of a finished or running run, and its report.

`jaxnets.evaluate(workdir, …)` evaluates, and takes the words of the command: `help(jaxnets.evaluate.ask.evaluate)`.
"""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.evaluate.ask:evaluate")
