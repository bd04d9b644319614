"""Similar images: an index of a model's vectors. `jaxnets.search(index, model)` opens one."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.search.index:open_index")
