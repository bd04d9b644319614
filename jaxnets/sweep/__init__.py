"""From a config to a better one: `jaxnets.sweep(config, space, out)` tries values of its keys, `find_rate` its rate.

A space says what may be tried, from a Python file's `get_space()`, or as it is:

    from jaxnets.sweep import choices, floats, ints

    def get_space():
        return {
            "optimizer.learning_rate": floats(0.01, 1.0, log=True),
            "augment.pad_and_crop.padding": ints(0, 2),
            "optimizer.name": choices("sgd", "adamw"),
        }
"""

from jaxnets.callable import make_callable
from jaxnets.sweep.space import choices, floats, ints

__all__ = ["choices", "floats", "ints"]

make_callable(__name__, "jaxnets.sweep.run:sweep")
