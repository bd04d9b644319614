"""The demo: `python demo/app.py [--model M …]` puts models on a web page."""

import argparse
import importlib.util
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the card may be shared
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from jaxnets import command
from jaxnets.errors import UserError

HERE = Path(__file__).parent
DEFAULT = "efficientnet_lite0"
DIGITS = tuple("0123456789")
MAX_FILES = 200  # of a batch
MAX_BYTES = "20mb"  # of one file
_KEPT_SECONDS = 3600  # of what visitors upload

# A wide table scrolls by itself and does not stretch the page.
_CSS = """
.gradio-container { width: 100%; max-width: 1440px !important; min-width: 0 !important; margin: auto; }
.gradio-container :is(.main, .wrap, .contain, .tabs, .tabitem, .row, .column) { max-width: 100%; }
.gradio-container .intro h1 { margin-bottom: 0; }
.gradio-container #table * { font-family: var(--font); }
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python demo/app.py", description="Show models on a web page.")
    parser.add_argument(
        "--model",
        action="append",
        help=f"a run directory, or the name of a pretrained model; again for another beside it "
        f"(default: the run in {HERE.name}/run where there is one, else {DEFAULT})",
    )
    parser.add_argument("--checkpoint", default="best", help="of runs: best (default), newest, or a step")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="default 127.0.0.1")
    parser.add_argument(
        "--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), help="default 7860"
    )
    parser.add_argument("--share", action="store_true", help="ask gradio.live for a public address")
    command.add_engine_option(parser)
    command.run(parser, _demo)


def _demo(options: argparse.Namespace, _: list[str]) -> int:
    _check_port(options.host, options.port)
    # Reading weights and importing Gradio take about as long, and wait for the disk in turn.
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs Gradio, which is not installed: pip install 'jaxnets[demo]'")
    importing = threading.Thread(target=importlib.import_module, args=("gradio",), daemon=True)
    importing.start()
    command.use_compilation_cache()
    from images import open_shown

    sources = options.model or [str(HERE / "run") if (HERE / "run").is_dir() else DEFAULT]
    models = [open_shown(source, options.checkpoint, options.engine) for source in dict.fromkeys(sources)]
    importing.join()
    page = build(models)
    try:
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=["settings"],
            max_file_size=MAX_BYTES,
            allowed_paths=[str(HERE / "examples")],
            theme=_theme(),
            css=_CSS,
        )
    except OSError as error:
        raise UserError(f"the page cannot be served on {options.host}:{options.port} ({error})") from error
    print(f"{', '.join(shown.title for shown in models)}: open {page.share_url or page.local_url}", flush=True)
    for shown in models:
        shown.warm()
    page.block_thread()
    return 0


def build(models: list[Any]) -> Any:
    """Returns the page of some `images.Shown`."""
    import gradio as gr

    with gr.Blocks(
        title="jaxnets", analytics_enabled=False, fill_width=True, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)
    ) as page:
        gr.Markdown(f"# What is in the image?\n{_introduction(models)}", elem_classes="intro")
        with gr.Tab("Image"):
            _image_tab(gr, models)
        with gr.Tab("Batch"):
            _batch_tab(gr, models)
        for shown in models:
            with gr.Tab(shown.title if len(models) > 1 else "Model"):
                _model_tab(gr, shown)
    return page


def _introduction(models: list[Any]) -> str:
    told = [f"**{shown.title}** tells {len(shown.names):,} classes apart" for shown in models]
    return "; ".join(told) + ". Give it an image, and see what it takes it for, and where it looks."


def _image_tab(gr: Any, models: list[Any]) -> None:
    from images import MOST_PROBABLE, choices, top

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
            image.preprocess = _uploaded
            samples = _samples(models)
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
                labels.append(gr.Label(label=title, num_top_classes=5, elem_id=f"prediction-{number}"))
                heat = gr.Image(
                    label="Where it looks (Grad-CAM)",
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
                classes.append(label)
                maps += [heat, caption]
                explain = partial(_explain, gr, shown)
                changes.append({"fn": explain, "inputs": [image, label, stage], "outputs": [heat, caption]})
                gr.on([label.input, stage.input], **changes[-1], api_visibility="private")

    def classify(file: Path | None) -> list[Any]:
        decoded = [_decode(gr, file, shown, warn=shown is models[0]) for shown in models]
        if decoded[0] is None:
            cleared = [gr.update(choices=choices(shown, None), value=MOST_PROBABLE) for shown in models]
            return [*[None] * len(models), *cleared, *[None, ""] * len(models)]
        rows = [shown.probabilities([x])[0] for shown, x in zip(models, decoded, strict=True)]
        bars = [dict(top(shown, row)) for shown, row in zip(models, rows, strict=True)]
        offered = [
            gr.update(choices=choices(shown, row), value=MOST_PROBABLE) for shown, row in zip(models, rows, strict=True)
        ]
        return [*bars, *offered, *[gr.skip()] * (2 * len(models))]

    predicted = image.change(classify, image, [*labels, *classes, *maps], api_visibility="private")
    for change in changes:
        predicted.then(**change, api_visibility="private")


def _explain(gr: Any, shown: Any, file: Path | None, label: int, stage: str) -> tuple[Any, str]:
    decoded = _decode(gr, file, shown, warn=False)  # the prediction has warned already
    return (None, "") if decoded is None else shown.explain(decoded, label, stage)


def _batch_tab(gr: Any, models: list[Any]) -> None:
    from images import BRIEF, brief, columns, table, to_csv

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
        return [brief(row) for row in rows], gr.update(value=str(target), interactive=True)

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
    start.click(classify, [files, model], [found, download], api_visibility="private")


def _model_tab(gr: Any, shown: Any) -> None:
    import records

    def listing(label: str, rows: Callable[[], Any] | list[Any], heads: tuple[str, ...] = ("what", "value")) -> None:
        gr.Dataframe(rows, label=label, headers=list(heads), interactive=False, wrap=True)

    if shown.run is None:
        listing("Model", records.card(shown))
        return
    run = shown.run
    drawn = records.curves(run)
    if drawn:
        with gr.Row():
            for title in drawn:
                gr.LinePlot(
                    partial(_frame, run, title),  # read anew for each visitor: the run may go on
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
    else:
        gr.Markdown("This run has no metrics.jsonl, and so no curves.")
    with gr.Row():
        with gr.Column(min_width=320):
            listing("Model", records.card(shown))
            if records.metrics(run):
                listing("Metrics (report/metrics.json)", partial(records.metrics, run))
                listing("Each class, the worst first", partial(records.per_class, run), ("class", "count", "accuracy"))
            else:
                gr.Markdown("No report yet: `python -m jaxnets.evaluate --workdir RUN` writes one.")
        with gr.Column(min_width=320):
            listing("Configuration", records.configuration(run), ("key", "value"))


def _frame(run: Any, title: str) -> Any:
    import pandas
    import records

    return pandas.DataFrame(records.curves(run).get(title, []), columns=["step", "value", "split"])


def _uploaded(payload: Any) -> Path | None:
    return None if payload is None or payload.path is None else Path(payload.path)


def _decode(gr: Any, file: Path | None, shown: Any, *, warn: bool) -> Any:
    from jaxnets.data.decode import decode
    from jaxnets.data.sources import CorruptImage

    if file is None:
        return None
    try:
        return decode(file, file.name, shown.classifier.preprocess.white_level)
    except CorruptImage as error:
        if warn:
            gr.Warning(str(error), title="This cannot be shown", duration=15)
        return None


def _samples(models: list[Any]) -> list[Path]:
    kind = "digits" if all(shown.names == DIGITS for shown in models) else "photos"
    return sorted((HERE / "examples" / kind).iterdir())


def _fresh(folder: Path) -> str:
    """Returns a new folder in `folder`, whose old ones are removed."""
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            for file in old.iterdir():
                file.unlink(missing_ok=True)
            old.rmdir()
    return tempfile.mkdtemp(dir=folder)


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"port {port} of {host} cannot be had ({reason}): give another with --port") from error


def _theme() -> Any:
    import gradio as gr

    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # the visitor's own: nothing is fetched
    return gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=("ui-monospace", "monospace"))


if __name__ == "__main__":
    main()
