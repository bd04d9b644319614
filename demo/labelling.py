"""A tab where a table of `python -m jaxnets.select` is labelled by keyboard: the model's guess stands there already."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from images import Shown, shrink

from jaxnets.data.sources import CorruptImage
from jaxnets.errors import UserError
from jaxnets.preprocess import with_channels
from jaxnets.select.checking import Checking

_SIDE = 768  # pixels of the image, at most
_KEYS = 10  # classes that have a key: 1 to 9, and 0

# Keys reach the page as a whole; what is typed into a field is not ours.
KEYBOARD = """
() => {
  document.addEventListener("keydown", event => {
    const field = event.target.closest("input:not([type=radio], [type=checkbox]), textarea, [contenteditable=true]");
    if (field || event.ctrlKey || event.altKey || event.metaKey) return;
    const shown = document.querySelector("#label-class");
    if (!shown || !shown.offsetParent) return;
    const press = id => document.querySelector(id).click();
    const place = "1234567890".indexOf(event.key);
    if (place >= 0 && event.key.length === 1) {
      const choice = shown.querySelectorAll("input[type=radio], input[type=checkbox]")[place];
      if (choice) choice.click();
    }
    else if (event.key === "Enter") press("#label-confirm");
    else if (event.key === "ArrowRight") press("#label-skip");
    else if (event.key === "ArrowLeft") press("#label-back");
    else return;
    event.preventDefault();
  });
}
"""


def labelling_tab(gr: Any, page: Any, shown: Shown, table: Checking) -> None:
    classes = tuple(dict.fromkeys([*shown.classifier.labels, *table.classes]))
    several = shown.classifier.several_labels
    place = gr.State(None)

    def show(row: int | None) -> list[Any]:
        """Returns the row, its image, its label and what is said of it."""
        if row is None:
            done = (
                f"**All {len(table):,} images are checked.** `python -m jaxnets.main` goes on from {table.file.name}."
            )
            return [None, None, gr.update(value=[] if several else None), done]
        said = [label for label in table.labels(row) if label in classes]
        value = said if several else next(iter(said), None)
        image, note = look(shown, table, row)
        return [row, image, gr.update(value=value), note]

    def confirm(row: int | None, label: str | list[str] | None) -> list[Any]:
        if row is None:
            return show(table.next())
        try:
            table.say(row, label if isinstance(label, list) else [label] if label else [])
        except UserError as error:
            gr.Warning(str(error), title="Not written", duration=15)
            return [gr.skip()] * 4
        return show(table.next(row))

    def begin() -> list[Any]:
        try:
            table.refresh()
        except UserError as error:
            gr.Warning(str(error), title="The table is as it was", duration=15)
        return show(table.next())

    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            image = gr.Image(
                label="Image",
                format="jpeg",
                interactive=False,
                height=480,
                buttons=["fullscreen"],
                elem_id="label-image",
            )
        with gr.Column(scale=2, min_width=320):
            note = gr.Markdown(elem_id="label-note")
            label = _choice(gr, classes, several)
            with gr.Row():
                back = gr.Button("Back (←)", min_width=90, elem_id="label-back")
                skip = gr.Button("Skip (→)", min_width=90, elem_id="label-skip")
                accept = gr.Button("Confirm (Enter)", variant="primary", min_width=130, elem_id="label-confirm")
    shown_now = [place, image, label, note]
    page.load(begin, None, shown_now, api_visibility="private")
    page.load(None, js=KEYBOARD)
    accept.click(confirm, [place, label], shown_now, api_visibility="private")
    label.input(None, js="() => document.activeElement.blur()")  # keys are the page's again
    skip.click(lambda row: show(_beside(table, row, 1)), place, shown_now, api_visibility="private")
    back.click(lambda row: show(_beside(table, row, -1)), place, shown_now, api_visibility="private")


def look(shown: Shown, table: Checking, row: int) -> tuple[np.ndarray | None, str]:
    """Returns a row's image, and what is said of it."""
    path = table.image(row)
    try:
        image = shrink(with_channels(shown.decode(path), 3), _SIDE)
    except CorruptImage as error:
        return None, f"**{error}** Skip it, or mend the file.\n\n{table.left:,} of {len(table):,} are left."
    kind = "checked" if table.checked(row) else "the model's guess"
    return image, f"**{path.name}**: {kind}\n\n{table.left:,} of {len(table):,} are left."


def open_table(file: str, root: str | None) -> Checking:
    """Opens a table; raises as `Checking`, and if the first image is not where it says."""
    table = Checking(file, root)
    if not table.image(0).exists():
        raise UserError(
            f"{table.image(0)} is not there, the first image of {file}: name the folder that its paths are relative to "
            f"(--root)"
        )
    return table


def _choice(gr: Any, classes: Sequence[str], several: bool) -> Any:
    if len(classes) > _KEYS:
        return gr.Dropdown(
            list(classes),
            label="Label (type some letters)",
            multiselect=several,
            interactive=True,
            elem_id="label-class",
        )
    keyed = [(f"{(number + 1) % _KEYS}  {name}", name) for number, name in enumerate(classes)]
    kind = gr.CheckboxGroup if several else gr.Radio
    return kind(keyed, label="Label (press its number)", interactive=True, elem_id="label-class")


def _beside(table: Checking, row: int | None, step: int) -> int:
    """Returns the row before or after one, checked or not, from the last to the first."""
    return (0 if row is None else row + step) % len(table)
