"""Prepares: `python -m jaxnets.prepare --source S --out DIR --size N` decodes a source once, for `prepared:DIR`."""

import argparse
from dataclasses import replace
from pathlib import Path

from jaxnets import cli, terminal
from jaxnets.errors import UserError
from jaxnets.flags import load_config
from jaxnets.schema import Size, sides


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.prepare",
        description="Decode a source once, so that a run's host only has to copy: config.data.source=prepared:DIR. The "
        "same command goes on where it was stopped, and writes anew what was damaged.",
        epilog="Keys of the config that say how a source is read are given as --config.data.KEY=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("--source", help="what is prepared, as config.data.source")
    parser.add_argument("--out", required=True, help="a folder, made where it is not there")
    parser.add_argument(
        "--size",
        help="pixels to which each whole image is squeezed: one number, or HEIGHTxWIDTH; training from files takes a "
        "quarter more than evaluation resizes to (default: config.data.canvas_size, else the images' own, where they "
        "have one)",
    )
    parser.add_argument(
        "--jpeg", type=int, metavar="QUALITY", help="store JPEG instead, the shorter side limited to --size: a tenth "
        "of the bytes, but to be decoded again"
    )  # fmt: skip
    parser.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read")
    parser.add_argument("--verify", action="store_true", help="read all of a finished --out, and name damaged shards")
    parser.add_argument("--config", default="digits", help="a config file whose config.data says how to read")
    together = parser.add_argument_group("several hosts", "that share --out; found on TPU pods, SLURM, …; else:")
    together.add_argument("--processes", type=int, help="that prepare together")
    together.add_argument("--process", type=int, help="the number of this one, from 0")
    cli.run(parser, _prepare, takes_rest=True)


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    _refuse_bucket(options.out)
    out = Path(options.out).expanduser()
    if options.verify:
        return _verify(out, config.data.threads)
    if options.source is None:
        raise UserError("--source says what is prepared, as config.data.source does: give it, or --verify")
    if options.jpeg is not None and not 1 <= options.jpeg <= 100:
        raise UserError(f"--jpeg takes a quality of 1 to 100, found {options.jpeg}")
    process, processes = _share(options.process, options.processes)

    from jaxnets.data.sources import open_undivided, with_absolute_paths
    from jaxnets.prepare.progress import Progress
    from jaxnets.prepare.run import describe, prepare

    spec = with_absolute_paths(replace(config.data, source=options.source))
    _refuse_within(spec.source, out)
    source = replace(open_undivided(spec), description=spec.source)
    if source.stored is not None:
        raise UserError(f"{spec.source} is prepared already: give --source what it was prepared from")
    canvas = None if spec.canvas_size is None or options.jpeg is not None else sides(spec.canvas_size)
    index = describe(source, spec, _size(options.size, canvas or source.image_size, options.jpeg), options.jpeg)
    progress = Progress()
    for note in source.notes:
        progress.say(f"data: {terminal.shown(note)}")
    left = sum(map(len, source.unlabelled.values()))
    if left:
        progress.say(f"data: {left:,} images without a class are not prepared: {', '.join(source.unlabelled)}")
    try:
        outcome = prepare(
            source,
            index,
            out,
            progress,
            threads=spec.threads,
            process=process,
            processes=processes,
            skip_corrupt=options.skip_corrupt or spec.skip_corrupt,
        )
    except KeyboardInterrupt:
        progress.say(f"what is finished is kept in {out}; the same command goes on from there")
        raise
    skipped = f", {outcome.skipped:,} left out that cannot be read" if outcome.skipped else ""
    if outcome.missing:
        progress.say(
            f"this share is finished: {outcome.examples:,} images{skipped}; {outcome.missing} shards of other "
            f"processes are missing, and whichever ends last makes the data set whole"
        )
        return 0
    progress.say(
        f"finished: {outcome.examples:,} images{skipped}; train on it with --config.data.source=prepared:{out}"
    )
    return 0


def _verify(out: Path, threads: int | None) -> int:
    from jaxnets.data.sources.prepared import read_index
    from jaxnets.prepare.progress import Progress
    from jaxnets.prepare.run import verify

    index = read_index(out, f"prepared:{out}")
    progress = Progress(what="reading")
    wrong = verify(out, index, progress, threads)
    for message in wrong:
        progress.say(terminal.shown(message))
    if wrong:
        raise UserError(
            f"{len(wrong)} of {sum(index.shards.values())} shards of {out} are damaged: run the command that prepared "
            f"it again (--source {index.source}), which writes these anew, or copy them again from where they are whole"
        )
    progress.say(f"{out} is whole: {sum(index.examples.values()) - index.skipped:,} images")
    return 0


def _size(given: str | None, own: tuple[int, int] | None, jpeg: int | None) -> tuple[int, int]:
    if given is None:
        if own is None:
            raise UserError(
                "the images have different sizes: give --size, in pixels; a quarter more than evaluation resizes to is "
                "what training from files takes (320 for a model of 224 and a crop of 0.875)"
            )
        return own if jpeg is None else (min(own), min(own))
    size = Size().parse(given)
    if size is None or min(sides(size)) < 1:
        raise UserError(f"--size must be {Size()}, found {given!r}")
    height, width = sides(size)
    if jpeg is not None and height != width:
        raise UserError(f"--size with --jpeg is the limit of the shorter side, one number, found {given!r}")
    return height, width


def _share(process: int | None, processes: int | None) -> tuple[int, int]:
    if (process is None) != (processes is None):
        raise UserError("--process and --processes are given together or not at all, found only one")
    if process is None or processes is None:
        from jaxnets.train.hosts import place_among_others

        return place_among_others()
    if processes < 1 or not 0 <= process < processes:
        raise UserError(f"--process {process} is not one of {processes} processes: they count from 0")
    return process, processes


def _refuse_bucket(out: str) -> None:
    if "://" in out or out.startswith("gs:/"):
        raise UserError(
            f"--out must be a folder of a disk, found {out}: prepare it there, then copy it to the bucket "
            f"(gcloud storage cp -r DIR {out})"
        )


def _refuse_within(source: str, out: Path) -> None:
    kind, _, location = source.partition(":")
    if kind == "folder" and out.resolve().is_relative_to(Path(location).expanduser().resolve()):
        raise UserError(
            f"--out {out} lies in {source}, which would then have a folder without images: give one that is beside it"
        )


if __name__ == "__main__":
    main()
