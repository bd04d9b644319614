"""The page: a tab for one image, one for many, one for each model, and where they are wanted for search and labels."""

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import records
from endpoints import add_endpoints
from images import BRIEF, MOST_PROBABLE, brief, choices, columns, headline, table, to_csv, top
from samples import samples_of
from uploads import decode, uploaded

from jaxnets.answer import refuses
from jaxnets.explain.methods import METHODS

MAX_FILES = 200  # of a batch
_KEPT_SECONDS = 3600  # of what visitors upload


def build(models: list[Any], indexes: Mapping[str, Any] | None = None, table: Any = None) -> Any:
    """Returns the page of some `images.Shown`.

    Args:
        models: what is on the page.
        indexes: of images that can be searched (`jaxnets.search.index.Index`), by the models' titles.
        table: a table to label (`jaxnets.select.checking.Checking`).
    """
    import gradio as gr

    with gr.Blocks(
        title="jaxnets", analytics_enabled=False, fill_width=True, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)
    ) as page:
        gr.Markdown(f"# What is in the image?\n{_introduction(models)}", elem_classes="intro")
        with gr.Tab("Image"):
            _image_tab(gr, models)
        with gr.Tab("Batch"):
            _batch_tab(gr, models)
        if indexes:
            from similar import similar_tab

            with gr.Tab("Similar"):
                similar_tab(gr, models, indexes)
        if table is not None:
            from labelling import labelling_tab

            with gr.Tab("Label"):
                labelling_tab(gr, page, models[0], table)
        for shown in models:
            with gr.Tab(shown.title if len(models) > 1 else "Model"):
                _model_tab(gr, page, shown)
        add_endpoints(gr, models)
    return page


def _introduction(models: list[Any]) -> str:
    known = [f"**{shown.title}** knows {len(shown.names):,} classes" for shown in models]
    return "; ".join(known) + ". Give it an image, and see what it takes it for, and where it looks."


def _image_tab(gr: Any, models: list[Any]) -> None:
    with gr.Row():
        with gr.Column(min_width=320):
            image = gr.Image(
                label="Image",
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                height=300,
                buttons=["fullscreen"],
                elem_id="image",
            )
            # Gradio's own opens the file, and fails without a word on what is no image: decoding is left to us.
            image.preprocess = uploaded
            if samples := samples_of(models):
                shelf = gr.Dataset(
                    components=[image],
                    samples=[[str(file)] for file in samples],
                    type="index",
                    label="Samples",
                    elem_id="samples",
                )
                shelf.click(lambda chosen: str(samples[chosen]), shelf, image, api_visibility="private")
        labels, classes, maps, changes = [], [], [], []
        for number, shown in enumerate(models):
            with gr.Column(min_width=320):
                title = shown.title if len(models) > 1 else "Prediction"
                prediction = gr.Label(label=title, elem_id=f"prediction-{number}")
                # Gradio's own puts the most probable class above the bars; an answer may be several labels, or none.
                prediction.postprocess = partial(_label_data, shown)
                labels.append(prediction)
                heat = gr.Image(
                    label="Where it looks",
                    format="jpeg",
                    interactive=False,
                    height=300,
                    buttons=["download", "fullscreen"],
                    elem_id=f"map-{number}",
                )
                caption = gr.Markdown(elem_id=f"caption-{number}")
                with gr.Row():
                    label = gr.Dropdown(
                        choices(shown, None),
                        value=MOST_PROBABLE,
                        label="Class",
                        interactive=True,
                        min_width=160,
                        elem_id=f"class-{number}",
                    )
                    stage = gr.Dropdown(shown.stages, value=shown.stages[-1], label="Stage", min_width=110)
                    named = [(METHODS[name].title, name) for name in shown.methods]
                    method = gr.Dropdown(named, value=shown.methods[0], label="Method", min_width=130)
                classes.append(label)
                maps += [heat, caption]
                explain = partial(_explain, gr, shown)
                changes.append({"fn": explain, "inputs": [image, label, stage, method], "outputs": [heat, caption]})
                gr.on([label.input, stage.input, method.input], **changes[-1], api_visibility="private")

    def classify(file: Path | None) -> list[Any]:
        decoded = [decode(gr, shown, file, warn=shown is models[0]) for shown in models]
        if any(image is None for image in decoded):
            cleared = [gr.update(choices=choices(shown, None), value=MOST_PROBABLE) for shown in models]
            return [*[None] * len(models), *cleared, *[None, ""] * len(models)]
        rows = [shown.rows([image])[0] for shown, image in zip(models, decoded, strict=True)]
        offered = [
            gr.update(choices=choices(shown, row), value=MOST_PROBABLE) for shown, row in zip(models, rows, strict=True)
        ]
        return [*rows, *offered, *[gr.skip()] * (2 * len(models))]

    predicted = image.change(classify, image, [*labels, *classes, *maps], api_visibility="private")
    for change in changes:
        predicted.then(**change, api_visibility="private")


def _label_data(shown: Any, row: Any) -> Any:
    """Returns the answer above the bars of the most probable classes, as Gradio's label shows it."""
    from gradio.components.label import LabelConfidence, LabelData

    if row is None:
        return {}
    bars = [LabelConfidence(label=name, confidence=p) for name, p in top(shown, row)]
    return LabelData(label=headline(shown, row), confidences=bars)


def _explain(gr: Any, shown: Any, file: Path | None, label: int, stage: str, method: str) -> tuple[Any, str]:
    decoded = decode(gr, shown, file, warn=False)  # the prediction has warned already
    return (None, "") if decoded is None else shown.explain(decoded, label, stage, method)


def _batch_tab(gr: Any, models: list[Any]) -> None:
    folder = tempfile.TemporaryDirectory(prefix="jaxnets-demo-")  # removed when the process ends

    def classify(files: list[str] | None, model: int, progress: Any = None) -> tuple[Any, Any]:
        progress = progress or gr.Progress()
        if not files:
            gr.Warning("Choose some images first.")
            return None, gr.update(value=None, interactive=False)
        if len(files) > MAX_FILES:
            raise gr.Error(f"{len(files)} files: give at most {MAX_FILES} at once", print_exception=False)
        heads, rows = columns(models[model]), []
        for row in table(models[model], [Path(file) for file in files]):
            rows.append(row)
            progress((len(rows), len(files)), unit="images")
        target = Path(_fresh(Path(folder.name)), "predictions.csv")
        target.write_text(to_csv(heads, rows), encoding="utf-8")
        kind = {"several_labels": models[model].classifier.several_labels, "refuses": refuses(models[model].classifier)}
        return [brief(row, **kind) for row in rows], gr.update(value=str(target), interactive=True)

    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            files = gr.File(label=f"Images, up to {MAX_FILES}", file_count="multiple", height=220, elem_id="files")
            names = [(shown.title, number) for number, shown in enumerate(models)]
            model = gr.Dropdown(names, value=0, label="Model", visible=len(models) > 1)
            start = gr.Button("Name them", variant="primary", elem_id="start")
            download = gr.DownloadButton("Download CSV", interactive=False, elem_id="csv")
        with gr.Column(scale=3, min_width=320):
            found = gr.Dataframe(
                label="Predictions",
                headers=list(BRIEF),
                column_widths=["28%", "28%", "44%"],
                wrap=True,
                interactive=False,
                elem_id="table",
            )
    start.click(classify, [files, model], [found, download], api_name="predict_batch")


def _model_tab(gr: Any, page: Any, shown: Any) -> None:
    def listing(label: str, rows: list[Any] | None, heads: tuple[str, ...] = ("what", "value")) -> Any:
        return gr.Dataframe(rows, label=label, headers=list(heads), interactive=False, wrap=True)

    def read_anew(component: Any, read: Callable[[], Any]) -> None:
        """Reads for each visitor what a run that goes on may change."""
        page.load(read, outputs=component, api_visibility="private")

    if shown.run is None:
        listing("Model", records.card(shown))
        return
    run = shown.run
    tabs = [("Report", _report_tab), ("Course", _course_tab)]
    for title, build_tab in tabs if records.has_page(run) else tabs[::-1]:
        with gr.Tab(title):
            build_tab(gr, shown, run, listing, read_anew)


def _report_tab(gr: Any, shown: Any, run: Any, listing: Callable[..., Any], read_anew: Callable[..., Any]) -> None:
    """Shows the page that `python -m jaxnets.evaluate` wrote, as it is."""
    read_anew(gr.HTML(padding=False, elem_classes="report"), partial(records.page, run))


def _course_tab(gr: Any, shown: Any, run: Any, listing: Callable[..., Any], read_anew: Callable[..., Any]) -> None:
    """Shows a run as far as it has come."""
    drawn = records.curves(run)
    if drawn:
        with gr.Row():
            for title in drawn:
                plot = gr.LinePlot(
                    x="step",
                    y="value",
                    color="split",
                    x_title="step",
                    y_title=" ",
                    title=title,
                    height=260,
                    min_width=320,
                    show_label=False,
                )
                read_anew(plot, partial(_frame, run, title))
    else:
        gr.Markdown("This run has no metrics.jsonl, and so no curves.")
    with gr.Row():
        with gr.Column(min_width=320):
            listing("Model", records.card(shown))
            if records.metrics(run):
                read_anew(listing("Metrics (report/metrics.json)", None), partial(records.metrics, run))
                classes = listing("Each class, the worst first", None, ("class", "count", records.measure(run)))
                read_anew(classes, partial(records.per_class, run))
            else:
                gr.Markdown("No report yet: `python -m jaxnets.evaluate --workdir RUN` writes one.")
        with gr.Column(min_width=320):
            listing("Configuration", records.configuration(run), ("key", "value"))


def _frame(run: Any, title: str) -> Any:
    import pandas

    return pandas.DataFrame(records.curves(run).get(title, []), columns=["step", "value", "split"])


def _fresh(folder: Path) -> str:
    """Returns a new folder in `folder`, whose old ones are removed."""
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            for file in old.iterdir():
                file.unlink(missing_ok=True)
            old.rmdir()
    return tempfile.mkdtemp(dir=folder)
