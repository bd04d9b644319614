"""ConvMixers (Trockman & Kolter 2022, "Patches are all you need?")."""

from jaxnets.models.convmixer.network import ConvMixer, structure
from jaxnets.models.family import Entry, Family

FAMILY = Family(
    network=ConvMixer,
    entries={
        "convmixer_tiny": Entry(fields={"width": 16, "depth": 3, "kernel": 3, "patch": 2, "num_classes": 10}),
        "convmixer_256_8": Entry(fields={"width": 256, "depth": 8, "kernel": 9, "patch": 1, "num_classes": 10}),
    },
    structure=structure,
)
