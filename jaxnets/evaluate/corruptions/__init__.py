"""The corruptions of ImageNet-C, computed as they are needed (Hendrycks & Dietterich 2019, arXiv:1903.12261).

Fifteen kinds of noise, blur, weather and damage by digital processing, and four more that were kept for validation,
each at five severities. `corrupt` applies one to one image.
"""

from jaxnets.evaluate.corruptions.table import ALL, COMMON, EXTRA, FAMILIES, corrupt, scale_of

__all__ = ["ALL", "COMMON", "EXTRA", "FAMILIES", "corrupt", "scale_of"]
