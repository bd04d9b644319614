"""Networks of dense layers alone."""

from collections.abc import Mapping

from jaxnets.models.family import Entry, Family
from jaxnets.models.mlp.network import MLP, structure

# Two hidden layers of 800 features: Simard et al. 2003 (table 1) on MNIST, with one more.
ENTRIES: Mapping[str, Entry] = {"mlp": Entry(fields={"widths": (800, 800), "num_classes": 10})}

FAMILY = Family(network=MLP, entries=ENTRIES, structure=structure)
