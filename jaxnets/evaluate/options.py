"""All that an evaluation can be asked, in one place: the words of `jaxnets.evaluate` and of its command.

`python -m jaxnets.evaluate --corrupt-images 100` and `jaxnets.evaluate(…, corrupt_images=100)` are made from the same
field, so that whatever one can be asked, the other can.
"""

import argparse
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from jaxnets.errors import UserError, nearest
from jaxnets.evaluate import words
from jaxnets.evaluate.words import Size, Word, spelt

_TRUST = "when to believe it"
_MORE = "comparing, groups, robustness"
_GROUPS: Mapping[str, str | None] = {
    "": None,
    _TRUST: "fitted on held-out images, kept in model.json, and used wherever the run answers",
    _MORE: None,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an evaluation is asked.

    Raises:
        UserError: for what contradicts itself, before anything is evaluated.
    """

    workdir: Annotated[
        str | None,
        Word("the run directory, or gs://BUCKET/RUN", words.text),
    ] = None
    split: Annotated[
        str,
        Word("test (default), train, or validation where there is one", words.text),
    ] = "test"
    batch_size: Annotated[
        int | None,
        Word("examples at a time; changes the speed, not the result", words.whole, type=int),
    ] = None
    checkpoint: Annotated[
        str | int,
        Word("best (default), newest, or a step", words.checkpoint),
    ] = "best"
    weights: Annotated[
        Literal["ema", "raw"],
        Word("ema (default), if averaged, or raw", words.weights, choices=("ema", "raw")),
    ] = "ema"
    source: Annotated[
        str | None,
        Word("new data to evaluate on, or where the run's own lies now (as config.data.source)", words.text),
    ] = None
    model: Annotated[
        str | None,
        Word(
            "an ONNX file exported from the run, which is judged instead; without --workdir, a model that no run here "
            "has trained, on the data of --source: a name as efficientnet_lite0, hf:OWNER/REPO, a file of weights",
            words.text,
            metavar="M",
        ),
    ] = None
    tta: Annotated[
        str | None,
        Word(
            "test-time augmentation, the mean of the logits: mirror, airbench (mirror and shifts by a pixel), crops, "
            "ten-crops",
            words.text,
            metavar="VIEWS",
        ),
    ] = None
    size: Annotated[
        Size | None,
        Word("pixels that images are brought to: a side, or HEIGHTxWIDTH (default: the model's)", words.size),
    ] = None
    thresholds: Annotated[
        str | None,
        Word(
            "of several labels: choose first, on this split (validation), from which probability on each is said, and "
            "keep that in the run's model.json",
            words.or_alone("validation", words.text),
            nargs="?",
            const="validation",
            metavar="SPLIT",
        ),
    ] = None
    out: Annotated[
        Path | None,
        Word(
            "folder for the report (default: DIR/report; from Python none is written without it)", words.path, type=Path
        ),
    ] = None
    parquet: Annotated[
        bool,
        Word("predictions.parquet in place of predictions.csv", words.flag),
    ] = False
    no_page: Annotated[
        bool,
        Word("figures and predictions alone, without the page", words.flag),
    ] = False
    calibrate: Annotated[
        bool,
        Word("fit the temperature that makes probabilities honest", words.flag, group=_TRUST),
    ] = False
    precision: Annotated[
        float | None,
        Word(
            "answer only where P of the answers are right (95 %% sure)",
            words.number,
            group=_TRUST,
            type=float,
            metavar="P",
        ),
    ] = None
    coverage: Annotated[
        float | None,
        Word("answer the surest C of the images", words.number, group=_TRUST, type=float, metavar="C"),
    ] = None
    familiar: Annotated[
        float | None,
        Word(
            "refuse what is unlike the training images, by energy and distance; SHARE (0.99) of images like them stay",
            words.or_alone(0.99, words.number),
            group=_TRUST,
            type=float,
            nargs="?",
            const=0.99,
            metavar="SHARE",
        ),
    ] = None
    conformal: Annotated[
        float | None,
        Word(
            "sets of classes that hold the right one for C of the images",
            words.number,
            group=_TRUST,
            type=float,
            metavar="C",
        ),
    ] = None
    fit_on: Annotated[
        str,
        Word("the held-out images (validation)", words.text, group=_TRUST, metavar="SPLIT"),
    ] = "validation"
    costs: Annotated[
        Path | None,
        Word(
            "what saying a class (column) costs where another is true (row)",
            words.path,
            group=_TRUST,
            type=Path,
            metavar="FILE.csv",
        ),
    ] = None
    against: Annotated[
        tuple[str, ...] | None,
        Word(
            "compare with other runs, models by name, or ONNX files of this run, on the same images: McNemar's test, "
            "intervals of the differences, and the images about which they disagree",
            words.runs,
            group=_MORE,
            nargs="+",
            metavar="RUN",
        ),
    ] = None
    table: Annotated[
        tuple[str, ...] | None,
        Word(
            "a table over any number of runs (runs/*), from their reports where these are up to date; without "
            "--workdir nothing else is done, and --out writes it as runs.csv and runs.html",
            words.runs,
            group=_MORE,
            nargs="+",
            metavar="RUN",
        ),
    ] = None
    by: Annotated[
        str | None,
        Word(
            "every figure by the value of a column of the source's table; numbers of many values by four ranges",
            words.text,
            group=_MORE,
            metavar="COLUMN",
        ),
    ] = None
    corruptions: Annotated[
        tuple[str, ...] | None,
        Word(
            "the error on corrupted images, as ImageNet-C: the 15 of its mean (default), all (and four more), or those "
            "named",
            words.or_alone((), words.several),
            group=_MORE,
            nargs="*",
            metavar="NAME",
        ),
    ] = None
    corrupt_images: Annotated[
        str | None,
        Word(
            "images that are corrupted, drawn by --seed: a number (default 1000) or all",
            words.count,
            group=_MORE,
            metavar="N",
        ),
    ] = None
    unlike: Annotated[
        str | None,
        Word(
            "how well images of another kind are told from the run's own: a source as config.data.source, or a folder "
            "of images",
            words.text,
            group=_MORE,
            metavar="SOURCE",
        ),
    ] = None
    class_map: Annotated[
        str | None,
        Word(
            "the test sets of ImageNet as they are published: imagenet, imagenet-v2, imagenet-a, imagenet-r, "
            "imagenet-sketch, or real:FILE for real.json",
            words.text,
            group=_MORE,
            metavar="NAME",
        ),
    ] = None
    seed: Annotated[
        int,
        Word("of resamples and corruptions (default 0)", words.whole, group=_MORE, type=int),
    ] = 0

    @property
    def is_of_the_run(self) -> bool:
        """Whether it is the run's own evaluation: its chosen weights as they are, on its own data."""
        changed = (self.source, self.model, self.tta, self.size, self.class_map)
        return changed == (None,) * len(changed) and (self.checkpoint, self.weights) == ("best", "ema")

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def of(cls, **given: Any) -> "Options":
        """Returns options from Python's values: paths and text, numbers, True for an option that may stand alone.

        Raises:
            UserError: for a word that is none, and a value that is not what it takes.
        """
        known = {each.name: each for each in fields(cls)}
        for name in given:
            if name not in known:
                raise UserError(
                    f"an evaluation has no option {name!r}{nearest(name, known)}; there are {', '.join(known)}"
                )
        return cls(**{name: _read(known[name], value) for name, value in given.items()})

    @classmethod
    def parsed(cls, namespace: argparse.Namespace) -> "Options":
        """Returns the options among those that a command was given.

        Raises:
            UserError: as `of`.
        """
        return cls.of(**{each.name: getattr(namespace, each.name) for each in fields(cls)})


def _read(of: Field[Any], value: Any) -> Any:
    if value is None:
        if of.default is not None:
            raise words.refuse(of.name, f"something like {of.default!r}", value)
        return None
    return _words()[of.name].read(of.name, value)


@cache
def _words() -> Mapping[str, Word]:
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(Options, include_extras=True).items()}


def _check(options: Options) -> None:
    """Refuses what contradicts itself.

    Raises:
        UserError: that says what.
    """
    from jaxnets.evaluate.further import corrupted_images, corruption_names

    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {options.batch_size}")
    if options.workdir is None and options.model is not None:
        _check_model(options)
    elif options.workdir is None and not options.table:
        raise UserError(
            "--workdir is needed, the run that is evaluated; or --model M for a model that no run here has trained, or "
            "--table RUN… for a table over several"
        )
    elif options.workdir is None:
        _check_alone(options)
    if options.corrupt_images is not None and options.corruptions is None:
        raise UserError("--corrupt-images says how many images --corruptions takes: give both, or neither")
    for path in options.against or ():
        _check_there(path)
    corrupted_images(options.corrupt_images)
    corruption_names(options.corruptions)
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, found {options.seed}")
    if options.parquet:
        from jaxnets.engine.onnx_file import require

        require("pyarrow", "parquet")


# What is kept in a run's model.json.
_KEPT = ("thresholds", "calibrate", "precision", "coverage", "familiar", "conformal")


def _check_model(options: Options) -> None:
    from jaxnets.run.resolve import resolve

    if str(options.model).endswith(".onnx"):
        raise UserError(
            f"--model {options.model} is judged as the run that it was exported from: give that as --workdir"
        )
    if resolve(str(options.model)).is_run:
        raise UserError(f"--model {options.model} is a run: give it as --workdir, beside which --model is a file of it")
    if options.source is None:
        raise UserError(f"--model {options.model} was trained by no run here: say with --source on which images")
    for name in _KEPT:
        if getattr(options, name):
            raise UserError(
                f"{spelt(name)} is kept in a run, and --model {options.model} is none: fine-tune it first (python -m "
                f"jaxnets.main --config finetune), or leave {spelt(name)} out"
            )


# What a table over runs has a use for, without a run of its own.
_OF_TABLES = frozenset({"table", "out", "split", "source", "batch_size", "seed"})


def _check_alone(options: Options) -> None:
    for each in fields(options):
        if each.name not in _OF_TABLES and getattr(options, each.name) != each.default:
            raise UserError(
                f"{spelt(each.name)} is asked of one run: give it with --workdir, beside --table or without it"
            )


def _check_there(path: str) -> None:
    """Refuses what is no run and no ONNX file, before the first model is asked."""
    from jaxnets.run.directory import open_run
    from jaxnets.run.resolve import resolve

    if not path.endswith(".onnx"):
        found = resolve(path)
        if found.is_run:
            open_run(found.location)
    elif not Path(path).is_file():
        raise UserError(
            f"--against {path}: there is no such file; give run directories, models, or ONNX files of this run"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds each option to a command."""
    places: dict[str, Any] = {
        title: parser if not title else parser.add_argument_group(title, said) for title, said in _GROUPS.items()
    }
    for each in fields(Options):
        word = _words()[each.name]
        told = {"action": "store_true"} if word.read is words.flag else word.command
        places[word.group].add_argument(spelt(each.name), default=each.default, help=word.help, **told)


def signature() -> Signature:
    """Returns how Python calls for an evaluation: the run, and the options by name."""
    hints = get_type_hints(Options)
    parameters = [
        Parameter(
            each.name,
            Parameter.POSITIONAL_OR_KEYWORD if each.name == "workdir" else Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=hints[each.name],
        )
        for each in fields(Options)
    ]
    return Signature(parameters, return_annotation=dict[str, Any])


def described() -> list[str]:
    """Returns a line on each option, as a docstring has them."""
    return [f"{name}: {word.help.replace('%%', '%')}." for name, word in _words().items()]
