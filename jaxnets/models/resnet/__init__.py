"""ResNets and what grew out of them."""

from jaxnets.models.family import Family
from jaxnets.models.resnet.network import ResNet
from jaxnets.models.resnet.variants import ENTRIES
from jaxnets.models.resnet.weights import LAYOUTS, transformers_name

FAMILY = Family(network=ResNet, entries=ENTRIES, layouts=LAYOUTS, transformers={"resnet": transformers_name})
