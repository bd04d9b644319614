"""EfficientNets, their Lite variants and EfficientNetV2."""

from jaxnets.models.efficientnet.network import EfficientNet
from jaxnets.models.efficientnet.variants import ENTRIES
from jaxnets.models.efficientnet.weights import LAYOUTS, transformers_name
from jaxnets.models.family import Family

FAMILY = Family(
    network=EfficientNet, entries=ENTRIES, layouts=LAYOUTS, transformers={"efficientnet": transformers_name}
)
