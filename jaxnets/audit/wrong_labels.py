"""The finding about labels that look wrong."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from jaxnets.audit.album import Album
from jaxnets.audit.finding import Case, Finding
from jaxnets.audit.labels import suspect
from jaxnets.audit.statistics import BLANK

_LEAST = 20  # images, below which there are no neighbours to ask
_KNOWS = 0.6  # share of all images that the judges must find in their class


def of_labels(
    album: Album, group: Int64[np.ndarray, " n"], progress: Callable[[int], None] = lambda _: None
) -> tuple[list[Finding], str]:
    """Returns the finding, if any, and a sentence on how labels were judged, or why not.

    Args:
        album: with embeddings, or without.
        group: of copies that each image is in, by the number of the first of them (`jaxnets.audit.copies`).
        progress: is told how many images have been compared.
    """
    if album.vectors is None:
        return [], "labels were not judged: there was no model to embed the images"
    if album.targets is not None:
        return [], "labels were not judged: images have several"
    # Of copies the first alone: a wrong label that is copied too would else vouch for itself.
    stands = group == np.arange(len(album))
    judged = np.flatnonzero(album.readable & (album.flat < BLANK) & stands)
    if len(judged) < _LEAST:
        return [], f"labels were not judged: {len(judged)} images are too few"
    found = suspect(album.vectors[judged], album.label[judged], len(album.class_names), progress)
    by = f"by the embeddings of {album.embedding}, which find {found.accuracy:.1%} of the images in their class"
    if found.accuracy < _KNOWS:
        return [], f"labels were not judged: {album.embedding} finds {found.accuracy:.1%} of the images in their class"
    cases = tuple(
        Case(
            examples=(int(judged[i]),),
            measure=round(float(votes), 4),
            text=f"looks like {album.class_names[other]} ({votes:.0%})",
        )
        for i, other, votes in zip(found.example.tolist(), found.other.tolist(), found.votes.tolist(), strict=True)
    )
    finding = Finding(
        kind="wrong_label",
        severity="warning",
        title="labels that look wrong",
        advice=f"judged {by}: look at each and mend the labels; some will be right and unusual",
        unit="share of the nearest images' votes for the other class",
        cases=cases,
    )
    return ([finding] if cases else []), f"labels were judged {by}"
