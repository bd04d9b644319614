"""A tab that finds the images of an index that are most like one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from images import Shown, shrink
from uploads import decode, uploaded

from jaxnets.data.sources import CorruptImage
from jaxnets.preprocess import with_channels
from jaxnets.search.given import by_model
from jaxnets.search.index import Index, open_index

_SIDE = 320  # pixels of an image that was found, at most
_MOST = 48  # images that are shown

Found = tuple[list[tuple[np.ndarray, str]], str]  # images with what stands below each, and what is said of them


def open_indexes(given: Sequence[str], models: Sequence[Shown]) -> dict[str, Index]:
    """Opens `DIR` or `TITLE=DIR` for the models on the page; returns them by the models' titles.

    Raises:
        UserError: if a model is not on the page or has two, or an index is missing, damaged, or of another model.
    """
    classifiers = {shown.title: shown.classifier for shown in models}
    return {title: open_index(folder, classifiers[title]) for title, folder in by_model(given, classifiers).items()}


def similar_tab(gr: Any, models: Sequence[Shown], indexes: Mapping[str, Index]) -> None:
    def find(file: Path | None, title: str, count: int) -> Found:
        shown = next(shown for shown in models if shown.title == title)
        image = decode(gr, shown, file)
        return ([], "") if image is None else look(shown, indexes[title], image, int(count))

    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            image = gr.Image(
                label="Image", type="filepath", sources=["upload", "webcam", "clipboard"], height=300, elem_id="like"
            )
            image.preprocess = uploaded
            title = gr.Dropdown([*indexes], value=next(iter(indexes)), label="Index of", visible=len(indexes) > 1)
            count = gr.Slider(1, _MOST, value=12, step=1, label="How many", elem_id="like-count")
        with gr.Column(scale=3, min_width=320):
            said = gr.Markdown(elem_id="like-said")
            gallery = gr.Gallery(
                label="The most alike first", format="jpeg", columns=4, object_fit="contain", elem_id="alike"
            )
    gr.on(
        [image.change, title.change, count.release],
        find,
        [image, title, count],
        [gallery, said],
        api_visibility="private",
    )


def look(shown: Shown, index: Index, image: np.ndarray, count: int) -> Found:
    """Returns the images of an index that are most like one; of a file that is gone its name alone."""
    (hits,) = index.find([image], count)
    found, gone = [], 0
    for hit in hits:
        try:
            small = shrink(with_channels(shown.decode(Path(hit.file)), 3), _SIDE)
        except CorruptImage:
            small, gone = np.full((64, 64, 3), 230, np.uint8), gone + 1
        found.append((small, f"{hit.similarity:.3f}  {Path(hit.file).name}"))
    same = sum(hit.similarity > 0.9999 for hit in hits)
    said = f"{len(index):,} images"
    if same:
        said += f"; {same} of these {'is' if same == 1 else 'are'} the same image, as far as the model sees"
    if gone:
        said += f"; {gone} can no longer be read where {'it' if gone == 1 else 'they'} lay"
    return found, said + "."
