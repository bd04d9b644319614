"""All that an evaluation can be asked, in one place: the words of `jaxnets.evaluate` and of its command.

`python -m jaxnets.evaluate --corrupt-images 100` and `jaxnets.evaluate(…, corrupt_images=100)` are made from the same
field, so that whatever one can be asked, the other can.
"""

import argparse
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, fields
from functools import cache
from glob import glob
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from jaxnets.errors import UserError, nearest

Size = int | tuple[int, int]

_TRUST = "when to believe it"
_MORE = "comparing, groups, robustness"
_GROUPS: Mapping[str, str | None] = {
    "": None,
    _TRUST: "fitted on held-out images, kept in model.json, and used wherever the run answers",
    _MORE: None,
}


class _Word:
    """What an option takes: `read` turns what Python gives into what the field holds, `command` goes to argparse."""

    def __init__(self, help: str, read: Callable[[str, Any], Any], *, group: str = "", **command: Any) -> None:
        self.help, self.read, self.group, self.command = help, read, group, command


def _refuse(name: str, expected: str, value: Any) -> UserError:
    return UserError(f"{spelt(name)} must be {expected}, found {value!r}")


def _text(name: str, value: Any, expected: str = "text") -> str:
    if not isinstance(value, str | os.PathLike) or not os.fsdecode(value):
        raise _refuse(name, expected, value)
    return os.fsdecode(value)


def _path(name: str, value: Any) -> Path:
    return Path(_text(name, value, "a path"))


def _flag(name: str, value: Any) -> bool:
    if value is not True and value is not False:
        raise _refuse(name, "True or False", value)
    return bool(value)


def _whole(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise _refuse(name, "a whole number", value) from error


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as error:
        raise _refuse(name, "a number", value) from error


def _several(name: str, value: Any) -> tuple[str, ...]:
    """Reads names or paths: one, or any number of them."""
    if isinstance(value, str | os.PathLike):
        return (_text(name, value),)
    if not isinstance(value, Iterable):
        raise _refuse(name, "text, or a list of it", value)
    return tuple(_text(name, each) for each in value)


def _runs(name: str, value: Any) -> tuple[str, ...]:
    """Reads run directories: one, or any number, or a pattern (runs/*) where no shell has put them in its place."""
    found: list[str] = []
    for each in _several(name, value):
        matching = [] if os.path.lexists(each) else sorted(glob(each))
        found += matching or [each]
    if not found:
        raise _refuse(name, "one or more of them", value)
    return tuple(found)


def _with(usual: Any, read: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """Reads True as what the option means where it stands alone, and False as if it were left out."""

    def either(name: str, value: Any) -> Any:
        return usual if value is True else None if value is False else read(name, value)

    return either


def _checkpoint(name: str, value: Any) -> str | int:
    return _text(name, value) if isinstance(value, str | os.PathLike) else _whole(name, value)


def _weights(name: str, value: Any) -> str:
    if value not in ("ema", "raw"):
        raise _refuse(name, "ema or raw", value)
    return str(value)


def _count(name: str, value: Any) -> str:
    """Reads a number of images, or all; `further.corrupted_images` says what it means."""
    return value if isinstance(value, str) else str(_whole(name, value))


def _size(name: str, value: Any) -> Size:
    """Reads pixels of a side, or of height and width: a number, two, or text as 64x48."""
    if isinstance(value, str):
        return read_size(value)
    given = value if isinstance(value, tuple | list) else (value,)
    sides = tuple(_whole(name, each) for each in given)
    if len(sides) not in (1, 2) or not all(0 < each < 10_000 for each in sides):
        raise _refuse(name, "pixels of a side, or height and width, up to 9999", value)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def read_size(text: str) -> Size:
    """Returns a side, or height and width, from what --size says.

    Raises:
        UserError: if it is neither.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", text.strip())
    if found is None:
        raise UserError(f"--size must be pixels of a side, or HEIGHTxWIDTH, up to 9999, found {text!r}")
    height, width = found.groups()
    return int(height) if width is None else (int(height), int(width))


def spelt(name: str) -> str:
    """Returns an option as the command has it, which is how messages name it."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an evaluation is asked.

    Raises:
        UserError: for what contradicts itself, before anything is evaluated.
    """

    workdir: Annotated[
        str | None,
        _Word("the run directory, or gs://BUCKET/RUN", _text),
    ] = None
    split: Annotated[
        str,
        _Word("test (default), train, or validation where there is one", _text),
    ] = "test"
    batch_size: Annotated[
        int | None,
        _Word("examples at a time; changes the speed, not the result", _whole, type=int),
    ] = None
    checkpoint: Annotated[
        str | int,
        _Word("best (default), newest, or a step", _checkpoint),
    ] = "best"
    weights: Annotated[
        Literal["ema", "raw"],
        _Word("ema (default), if averaged, or raw", _weights, choices=("ema", "raw")),
    ] = "ema"
    source: Annotated[
        str | None,
        _Word("new data to evaluate on, or where the run's own lies now (as config.data.source)", _text),
    ] = None
    model: Annotated[
        Path | None,
        _Word("an ONNX file exported from the run, which is judged instead", _path, type=Path, metavar="FILE.onnx"),
    ] = None
    tta: Annotated[
        str | None,
        _Word(
            "test-time augmentation, the mean of the logits: mirror, airbench (mirror and shifts by a pixel), crops, "
            "ten-crops",
            _text,
            metavar="VIEWS",
        ),
    ] = None
    size: Annotated[
        Size | None,
        _Word("pixels that images are brought to: a side, or HEIGHTxWIDTH (default: the model's)", _size),
    ] = None
    thresholds: Annotated[
        str | None,
        _Word(
            "of several labels: choose first, on this split (validation), from which probability on each is said, and "
            "keep that in the run's model.json",
            _with("validation", _text),
            nargs="?",
            const="validation",
            metavar="SPLIT",
        ),
    ] = None
    out: Annotated[
        Path | None,
        _Word("folder for the report (default: DIR/report; from Python none is written without it)", _path, type=Path),
    ] = None
    parquet: Annotated[
        bool,
        _Word("predictions.parquet in place of predictions.csv", _flag),
    ] = False
    no_page: Annotated[
        bool,
        _Word("figures and predictions alone, without the page", _flag),
    ] = False
    calibrate: Annotated[
        bool,
        _Word("fit the temperature that makes probabilities honest", _flag, group=_TRUST),
    ] = False
    precision: Annotated[
        float | None,
        _Word(
            "answer only where P of the answers are right (95 %% sure)", _number, group=_TRUST, type=float, metavar="P"
        ),
    ] = None
    coverage: Annotated[
        float | None,
        _Word("answer the surest C of the images", _number, group=_TRUST, type=float, metavar="C"),
    ] = None
    familiar: Annotated[
        float | None,
        _Word(
            "refuse what is unlike the training images, by energy and distance; SHARE (0.99) of images like them stay",
            _with(0.99, _number),
            group=_TRUST,
            type=float,
            nargs="?",
            const=0.99,
            metavar="SHARE",
        ),
    ] = None
    conformal: Annotated[
        float | None,
        _Word(
            "sets of classes that hold the right one for C of the images",
            _number,
            group=_TRUST,
            type=float,
            metavar="C",
        ),
    ] = None
    fit_on: Annotated[
        str,
        _Word("the held-out images (validation)", _text, group=_TRUST, metavar="SPLIT"),
    ] = "validation"
    costs: Annotated[
        Path | None,
        _Word(
            "what saying a class (column) costs where another is true (row)",
            _path,
            group=_TRUST,
            type=Path,
            metavar="FILE.csv",
        ),
    ] = None
    against: Annotated[
        tuple[str, ...] | None,
        _Word(
            "compare with other runs, or ONNX files of this run, on the same images: McNemar's test, intervals of the "
            "differences, and the images about which they disagree",
            _runs,
            group=_MORE,
            nargs="+",
            metavar="RUN",
        ),
    ] = None
    table: Annotated[
        tuple[str, ...] | None,
        _Word(
            "a table over any number of runs (runs/*), from their reports where these are up to date; without "
            "--workdir nothing else is done, and --out writes it as runs.csv and runs.html",
            _runs,
            group=_MORE,
            nargs="+",
            metavar="RUN",
        ),
    ] = None
    by: Annotated[
        str | None,
        _Word(
            "every figure by the value of a column of the source's table; numbers of many values by four ranges",
            _text,
            group=_MORE,
            metavar="COLUMN",
        ),
    ] = None
    corruptions: Annotated[
        tuple[str, ...] | None,
        _Word(
            "the error on corrupted images, as ImageNet-C: the 15 of its mean (default), all (and four more), or those "
            "named",
            _with((), _several),
            group=_MORE,
            nargs="*",
            metavar="NAME",
        ),
    ] = None
    corrupt_images: Annotated[
        str | None,
        _Word(
            "images that are corrupted, drawn by --seed: a number (default 1000) or all",
            _count,
            group=_MORE,
            metavar="N",
        ),
    ] = None
    unlike: Annotated[
        str | None,
        _Word(
            "how well images of another kind are told from the run's own: a source as config.data.source, or a folder "
            "of images",
            _text,
            group=_MORE,
            metavar="SOURCE",
        ),
    ] = None
    class_map: Annotated[
        str | None,
        _Word(
            "the test sets of ImageNet as they are published: imagenet, imagenet-v2, imagenet-a, imagenet-r, "
            "imagenet-sketch, or real:FILE for real.json",
            _text,
            group=_MORE,
            metavar="NAME",
        ),
    ] = None
    seed: Annotated[
        int,
        _Word("of resamples and corruptions (default 0)", _whole, group=_MORE, type=int),
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
            raise _refuse(of.name, f"something like {of.default!r}", value)
        return None
    return _words()[of.name].read(of.name, value)


@cache
def _words() -> Mapping[str, _Word]:
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(Options, include_extras=True).items()}


def _check(options: Options) -> None:
    """Refuses what contradicts itself.

    Raises:
        UserError: that says what.
    """
    from jaxnets.evaluate.further import corrupted_images, corruption_names

    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {options.batch_size}")
    if options.workdir is None and not options.table:
        raise UserError("--workdir is needed, the run that is evaluated; or --table RUN… for a table over several")
    if options.workdir is None:
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

    if not path.endswith(".onnx"):
        open_run(path)
    elif not Path(path).is_file():
        raise UserError(f"--against {path}: there is no such file; give run directories, or ONNX files of this run")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds each option to a command."""
    places: dict[str, Any] = {
        title: parser if not title else parser.add_argument_group(title, said) for title, said in _GROUPS.items()
    }
    for each in fields(Options):
        word = _words()[each.name]
        told = {"action": "store_true"} if word.read is _flag else word.command
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
