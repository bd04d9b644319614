"""Fine-tuning in one command: a head on cached features, then perhaps more. `jaxnets.finetune(source)` does it."""

from jaxnets.callable import make_callable

make_callable(__name__, "jaxnets.finetune.call:finetune")
