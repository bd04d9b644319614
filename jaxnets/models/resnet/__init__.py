"""ResNets and what grew out of them."""

from jaxnets.models.family import Family
from jaxnets.models.resnet.network import ResNet, structure
from jaxnets.models.resnet.variants import ENTRIES
from jaxnets.models.resnet.weights import LAYOUTS, PUBLISHED, of_transformers

FAMILY = Family(
    network=ResNet,
    entries=ENTRIES,
    structure=structure,
    layouts=LAYOUTS,
    transformers={"resnet": of_transformers},
    published=PUBLISHED,
)
