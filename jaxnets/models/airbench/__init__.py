"""The networks of the CIFAR-10 speed runs."""

from jaxnets.models.airbench.network import Airbench, structure
from jaxnets.models.airbench.variants import ENTRIES
from jaxnets.models.airbench.whitening import whitened
from jaxnets.models.family import Family

FAMILY = Family(network=Airbench, entries=ENTRIES, structure=structure, from_images=whitened)
