"""Audits: `python -m jaxnets.data --source S [--config C]` looks a data set over before it is trained on."""

import argparse
import logging
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import cli, terminal
from jaxnets.cache import use_compilation_cache
from jaxnets.cores import cores
from jaxnets.errors import UserError
from jaxnets.flags import load_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxnets.audit.embedding import ModelEmbedding
    from jaxnets.audit.preview import Fed
    from jaxnets.config import Config
    from jaxnets.data.dataset import Dataset, Selection

_FED = 48  # images of a batch that are shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.data",
        description="Look a data set over before it is trained on: what is in it, what is wrong with it, and, with a "
        "config, what the model will be fed. Ends with 1 where training would suffer, with 0 otherwise.",
        epilog="Any key of the config can be changed with --config.KEY=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("--source", help="the images, as config.data.source; by default the config's")
    parser.add_argument("--config", help="a config file, or the name of one that ships with jaxnets")
    parser.add_argument("--out", type=Path, default=Path("audit"), help="folder for the report (default: audit)")
    parser.add_argument(
        "--model", help=f"that labels are judged by: {cli.MODEL}; none: not at all (default: efficientnet_lite0)"
    )
    parser.add_argument("--batches", type=int, default=1, help="that are shown as they are fed (default 1)")
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    cli.run(parser, _audit, takes_rest=True)


def _audit(options: argparse.Namespace, overrides: list[str]) -> int:
    with _usage():
        if options.source is None and options.config is None:
            raise UserError("give --source (folder:DIR for instance), --config, or both")
        if options.batches < 1:
            raise UserError(f"--batches must be at least 1, found {options.batches}")
        config = load_config(options.config, overrides)
    # What cannot be read is named at the end, all of it.
    data = replace(config.data, source=options.source or config.data.source, skip_corrupt=True)
    config = replace(config, data=data)
    use_compilation_cache()

    from jaxnets.audit.audit import Audit, run_audit
    from jaxnets.audit.display import Bar, show
    from jaxnets.audit.write import prepare_folder, write

    with _usage():
        prepare_folder(options.out)
    console = terminal.console(quiet=options.json)
    fed: list[Fed] = []
    with ExitStack() as at_end:
        reader = logging.getLogger("jaxnets.data.examples")  # which would name each unreadable image as well
        at_end.callback(reader.setLevel, reader.level)
        reader.setLevel(logging.ERROR)
        opened, selections, class_names, notes = _open(config, with_config=options.config is not None)
        with _usage():
            embedding, note = _embedding(options.model)
        audit = Audit(description=data.source, notes=[*notes, *([note] if note else [])])
        bar = Bar(console)
        at_end.callback(bar.stop)
        try:
            if opened is not None:
                from jaxnets.audit.preview import feed

                fed += feed(config, opened, options.batches, _FED)
            run_audit(
                audit,
                selections,
                class_names,
                threads=data.threads or cores(),
                white_level=data.white_level,
                embedding=embedding,
                progress=bar.update,
            )
        except KeyboardInterrupt:
            bar.stop()
            if audit.album is not None:
                write(audit, fed, options.out)
            rest = f"{options.out / 'index.html'} holds the rest" if audit.album is not None else "nothing was written"
            console.print(f"not done: {', '.join(audit.left)}; {rest}", soft_wrap=True)
            raise
    write(audit, fed, options.out)
    if options.json:
        print(terminal.json_text(audit.to_json()))
    else:
        show(audit, console, options.out)
    return audit.status


@contextmanager
def _usage() -> "Iterator[None]":
    """Makes a mistake in the options end with 2: 1 says that training would suffer."""
    try:
        yield
    except UserError as error:
        error.status = 2
        raise


def _open(
    config: "Config", *, with_config: bool
) -> "tuple[Dataset | None, Mapping[str, Selection], tuple[str, ...], Sequence[str]]":
    """Returns the data set as a run of the config uses it, if there is one, and the splits that are looked over."""
    import numpy as np

    from jaxnets.data.sources import open_source

    if not with_config:
        source = open_source(config.data, config.seed)
        selections = {name: (split, np.arange(len(split))) for name, split in source.splits.items()}
        return None, selections, source.class_names, source.notes
    from jaxnets.data.dataset import open_dataset
    from jaxnets.train.start import open_start

    start = open_start(config)
    opened = open_dataset(config, pretrained=start.preprocess if start else None)
    return opened, opened.selections, opened.class_names, opened.notes


def _embedding(model: str | None) -> "tuple[ModelEmbedding | None, str]":
    """Returns what labels are judged by, or why there is none where nobody asked for one by name."""
    if model == "none":
        return None, ""
    from jaxnets.audit.embedding import DEFAULT, open_embedding

    try:
        return open_embedding(model or DEFAULT), ""
    except UserError as error:
        if model is not None:
            raise
        return None, f"{DEFAULT} cannot be opened ({error})"


if __name__ == "__main__":
    main()
