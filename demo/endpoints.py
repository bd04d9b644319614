"""What programs ask of the demo by name, as `gradio_client` does: /predict and /explain.

client = gradio_client.Client("http://127.0.0.1:7860")
client.predict(gradio_client.handle_file("PHOTO.jpg"), api_name="/predict")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from images import MOST_PROBABLE, TOP, Shown
from uploads import uploaded

from jaxnets.answer import as_json
from jaxnets.data.sources import CorruptImage
from jaxnets.errors import UserError, nearest


def add_endpoints(gr: Any, models: Sequence[Shown]) -> None:
    """Adds them, with components that no visitor sees but from which Gradio describes what each takes."""

    def predict(image: Path | None, model: str) -> dict[str, Any]:
        shown = find(gr, models, model)
        (row,) = shown.rows([_decode(gr, shown, image)])
        return {"model": shown.title, **as_json(shown.classifier, row, TOP, shown.names)}

    def explain(image: Path | None, model: str, label: str, stage: str, method: str) -> tuple[np.ndarray, str]:
        shown = find(gr, models, model)
        try:
            number = shown.classifier.find_label(label) if label else MOST_PROBABLE
            return shown.explain(_decode(gr, shown, image), number, stage or shown.stages[-1], method or None)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    with gr.Column(visible=False):
        image = gr.Image(label="image", type="filepath")
        image.preprocess = uploaded
        model = gr.Textbox(models[0].title, label="model: " + ", ".join(shown.title for shown in models))
        label = gr.Textbox("", label="label: a class by name or number; nothing for the most probable")
        stage = gr.Textbox("", label="stage: stage1, stage2, …; nothing for the last")
        method = gr.Textbox("", label="method: " + ", ".join(models[0].methods) + "; nothing for the first")
        found = gr.JSON(label="the most probable classes")
        heat = gr.Image(label="the image under its map", format="jpeg")
        caption = gr.Markdown(label="the class, its probability and the stage")
        gr.Button().click(predict, [image, model], found, api_name="predict")
        gr.Button().click(explain, [image, model, label, stage, method], [heat, caption], api_name="explain")


def find(gr: Any, models: Sequence[Shown], title: str) -> Shown:
    """Returns the model of a title; the first for none."""
    titles = [shown.title for shown in models]
    if not title:
        return models[0]
    if title not in titles:
        raise gr.Error(
            f"there is no model {title!r}{nearest(title, titles)}: give one of {', '.join(titles)}",
            print_exception=False,
        )
    return models[titles.index(title)]


def _decode(gr: Any, shown: Shown, file: Path | None) -> np.ndarray:
    if file is None:
        raise gr.Error("give an image: gradio_client.handle_file(PATH or URL)", print_exception=False)
    try:
        return shown.decode(file)
    except CorruptImage as error:
        raise gr.Error(str(error), print_exception=False) from error
