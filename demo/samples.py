"""The images that a page offers: those that its models were trained for, or none."""

from collections.abc import Sequence
from pathlib import Path

from images import Shown

_EXAMPLES = Path(__file__).parent / "examples"
_FIRST_OF_IMAGENET = ("tench", "n01440764")  # the first of its 1,000 classes, by name or by its WordNet number


def samples_of(models: Sequence[Shown]) -> list[Path]:
    """Returns the samples of each model on the page, without repetition."""
    kinds = dict.fromkeys(kind for shown in models if (kind := _kind(shown)))
    return [file for kind in kinds for file in sorted((_EXAMPLES / kind).iterdir())]


def _kind(shown: Shown) -> str | None:
    labels = shown.classifier.labels
    if len(labels) == 1000 and labels[0].lower().startswith(_FIRST_OF_IMAGENET):
        return "photos"
    # Other images are of classes 0 … 9 as well, so the names of the classes do not say it.
    if shown.run is not None and shown.run.read_config().data.source == "digits":
        return "digits"
    return None
