"""The names of ImageNet-1k's classes, in the order in which its models give them: that of the WordNet synsets.

The names are the synsets' first lemmas in WordNet 3.0 (© Princeton University, WordNet licence,
https://wordnet.princeton.edu/license-and-commercial-use), four of them told apart from namesakes.
"""

from functools import cache
from importlib import resources


@cache
def class_names() -> tuple[str, ...]:
    """Returns 1,000 different names; the index is the class."""
    text = resources.files("jaxnets.pretrained").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
