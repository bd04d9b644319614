"""Vision transformers: ViT, DeiT and DeiT III."""

from jaxnets.models.family import Family
from jaxnets.models.vit.network import ViT, fields_of_size, structure
from jaxnets.models.vit.variants import ENTRIES
from jaxnets.models.vit.weights import LAYOUTS, PUBLISHED, TIMM, of_transformers

FAMILY = Family(
    network=ViT,
    entries=ENTRIES,
    structure=structure,
    layouts=LAYOUTS,
    fields_of_size=fields_of_size,
    timm=TIMM,
    transformers={"vit": of_transformers},
    published=PUBLISHED,
)
