"""ConvNeXts and ConvNeXt V2."""

from jaxnets.models.convnext.network import ConvNeXt, structure
from jaxnets.models.convnext.variants import ENTRIES
from jaxnets.models.convnext.weights import LAYOUTS, PUBLISHED, of_transformers
from jaxnets.models.family import Family

FAMILY = Family(
    network=ConvNeXt,
    entries=ENTRIES,
    structure=structure,
    layouts=LAYOUTS,
    transformers={"convnext": of_transformers, "convnextv2": of_transformers},
    published=PUBLISHED,
)
