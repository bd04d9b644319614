"""The demo: `python demo/app.py [--model M …]` puts models on a web page."""

import argparse
import importlib.util
import os
import socket
import threading
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the card may be shared
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from variables import check

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError

HERE = Path(__file__).parent
DEFAULT = "efficientnet_lite0"
MAX_BYTES = "20mb"  # of one file

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
        metavar="[NAME=]MODEL",
        help=f"{cli.MODEL}; again for another beside it "
        f"(default: the run in {HERE.name}/run where there is one, else {DEFAULT})",
    )
    parser.add_argument("--checkpoint", default="best", help="of runs: best (default), newest, or a step")
    parser.add_argument(
        "--index", action="append", default=[], metavar="[NAME=]DIR", dest="indexes",
        help="an index that python -m jaxnets.search built with the model: a tab finds images that are alike",
    )  # fmt: skip
    parser.add_argument(
        "--label", metavar="TABLE", dest="table",
        help="a table of python -m jaxnets.select: a tab to label its images by keyboard; whoever opens the page can",
    )  # fmt: skip
    parser.add_argument("--root", help="of --label: the folder that its paths are relative to (default: its own)")
    parser.add_argument("--host", help="default GRADIO_SERVER_NAME, else 127.0.0.1")
    parser.add_argument("--port", type=int, help="default GRADIO_SERVER_PORT, else 7860")
    parser.add_argument("--share", action="store_true", help="ask gradio.live for a public address")
    cli.add_engine_option(parser)
    cli.run(parser, _demo)


def _demo(options: argparse.Namespace, _: list[str]) -> int:
    check(os.environ)
    host = options.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860")) if options.port is None else options.port
    _check_port(host, port)
    # Reading weights and importing Gradio take about as long, and wait for the disk in turn.
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs Gradio, which is not installed: pip install 'jaxnets[demo]'")
    importing = threading.Thread(target=importlib.import_module, args=("gradio",), daemon=True)
    importing.start()
    use_compilation_cache()
    from images import open_shown
    from page import build

    sources = options.model or [str(HERE / "run") if (HERE / "run").is_dir() else DEFAULT]
    table = None
    if options.table is not None:
        from labelling import open_table

        table = open_table(options.table, options.root)
    models = [open_shown(source, options.checkpoint, options.engine) for source in dict.fromkeys(sources)]
    indexes = {}
    if options.indexes:
        from similar import open_indexes

        indexes = open_indexes(options.indexes, models)
    importing.join()
    page = build(models, indexes, table)
    try:
        page.launch(
            server_name=host,
            server_port=port,
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
        raise UserError(f"the page cannot be served on {host}:{port} ({error})") from error
    print(f"{', '.join(shown.title for shown in models)}: open {page.share_url or page.local_url}", flush=True)
    for shown in models:
        shown.warm()
    page.block_thread()
    return 0


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
