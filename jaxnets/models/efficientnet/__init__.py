"""EfficientNets, their Lite variants and EfficientNetV2."""

from jaxnets.models.efficientnet.network import EfficientNet, structure
from jaxnets.models.efficientnet.variants import ENTRIES
from jaxnets.models.efficientnet.weights import LAYOUTS, PUBLISHED, of_transformers
from jaxnets.models.family import Family

FAMILY = Family(
    network=EfficientNet,
    entries=ENTRIES,
    structure=structure,
    layouts=LAYOUTS,
    transformers={"efficientnet": of_transformers},
    published=PUBLISHED,
)
