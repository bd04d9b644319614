"""The images to label next, from which a model would learn most. `jaxnets.select(model, folder, 100)` names them."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.select.run:select")
