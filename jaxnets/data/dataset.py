"""A source as a run uses it: its splits, its classes and how its images are fitted to the model."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64

from jaxnets.config import Config, DataConfig
from jaxnets.cores import cores
from jaxnets.data.canvas import Canvas, canvas_for
from jaxnets.data.division import NAMED, Selection, count_notes, divide
from jaxnets.data.examples import Examples
from jaxnets.data.fingerprint import fingerprint
from jaxnets.data.order import Order
from jaxnets.data.sources import Source, Split, Subset, classes_by_rarity, open_labelled, open_source
from jaxnets.data.sources.base import Stored
from jaxnets.errors import UserError, nearest
from jaxnets.preprocess import Preprocess
from jaxnets.schema import sides, written

_MEASURED = 4096  # training images, evenly spaced, that mean and standard deviation are measured on


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What a model can be evaluated on."""

    splits: Mapping[str, Examples]  # fitted as evaluation does
    threads: int
    notes: tuple[str, ...]  # what there is, how it was understood and what was passed over, a sentence each

    def split(self, name: str) -> Examples:
        if name not in self.splits:
            raise UserError(f"there is no split {name!r}{nearest(name, self.splits)}; it has {', '.join(self.splits)}")
        return self.splits[name]


@dataclass(frozen=True, kw_only=True)
class Dataset(Labelled):
    """What a run trains on: train, test, and validation where there is one or a share of train is held out."""

    class_names: tuple[str, ...]
    preprocess: Preprocess
    training_preprocess: Preprocess  # the same at the size that is trained at
    training: Examples  # the train split on its canvas
    order: Order  # of the training examples
    skip_corrupt: bool  # images that cannot be read are left out
    canvas_is_input: bool  # each canvas is an image of that size, of which evaluation would crop nothing
    unlabelled: Mapping[str, Sequence[str]] = field(default_factory=dict)  # folder → paths of images without a class
    selections: Mapping[str, Selection] = field(default_factory=dict)

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.training.several_labels

    def class_counts(self) -> Float64[np.ndarray, " classes"]:
        """Returns how many images of an epoch have each class; data.balance changes that, with fractions."""
        labels, times = self.training.labels, self.order.times
        if labels.ndim == 2:
            return times @ labels
        return np.bincount(labels, times, len(self.class_names))

    @property
    def cut_by_host(self) -> bool:
        """Whether training images are boxes that the host cuts out, in place of canvases."""
        return self.training.cut

    def with_host_cut(self) -> "Dataset":
        """Returns the same data whose training images are boxes that the host cuts out, in place of canvases."""
        p, split = self.training_preprocess, self.selections["train"]
        size = Canvas(height=p.height, width=p.width, channels=p.channels)
        training = Examples(*split, size, skip_corrupt=self.skip_corrupt, cut=True)
        return replace(self, training=training, canvas_is_input=False)

    def fingerprint(self) -> dict[str, int]:
        """Returns what tells this data from other data, wherever it lies (`jaxnets.data.fingerprint`)."""
        return fingerprint(self.selections)


def open_dataset(
    config: Config,
    preprocess: Preprocess | None = None,
    pretrained: Preprocess | None = None,
    source: Source | None = None,
) -> Dataset:
    """Opens the config's source; `preprocess` is given where a run has fixed it, and found out otherwise.

    What the config leaves open is then as with the `pretrained` weights, where there are some. A `source` that is given
    takes the place of the config's.

    Raises:
        UserError: if the source cannot be read or contradicts the config.
    """
    data = config.data
    source = source or open_source(data, config.seed)
    if data.num_classes is not None and data.num_classes != len(source.class_names):
        raise UserError(
            f"config.data.num_classes is {data.num_classes}, but {source.description} has {len(source.class_names)} "
            f"classes: leave it out, or look at the source"
        )
    threads = cores() if data.threads is None else data.threads
    fitted = preprocess or _preprocess(data, source, pretrained)
    trained = _for_training(data, fitted)
    if source.stored is not None:
        _refuse_mismatch(data, source, source.stored, fitted, trained)
    canvas = canvas_for(source, trained, data.canvas_size)
    if data.canvas_size is not None and (canvas.height < trained.height or canvas.width < trained.width):
        raise UserError(
            f"config.data.canvas_size {canvas.height}×{canvas.width} is smaller than the images of "
            f"{trained.height}×{trained.width} that are trained on, so that training would see coarser images than "
            f"evaluation: give at least that, or leave it out"
        )
    selections = {name: _selection(split) for name, split in source.splits.items()}
    selections |= divide(data, source, selections, config.seed)
    for name, (_, chosen) in selections.items():
        if not len(chosen):
            raise UserError(f"the {name} split of {source.description} is empty: it needs at least one image")
    training = Examples(*selections["train"], canvas, skip_corrupt=data.skip_corrupt)
    if preprocess is None and data.mean is None and pretrained is None:
        mean, std = _measure(training, threads)
        fitted = replace(fitted, mean=mean, std=std)
    return Dataset(
        class_names=source.class_names,
        preprocess=fitted,
        training_preprocess=replace(trained, mean=fitted.mean, std=fitted.std),
        splits={
            name: Examples(split, chosen, fitted, skip_corrupt=data.skip_corrupt)
            for name, (split, chosen) in selections.items()
        },
        training=training,
        order=Order(
            config.seed,
            classes_by_rarity(training.labels),
            data.balance,
            repeats=data.repeats,
            batch_size=config.batch_size,
        ),
        skip_corrupt=data.skip_corrupt,
        canvas_is_input=source.image_size == (canvas.height, canvas.width) and trained.keeps(training.shape),
        threads=threads,
        notes=(*_notes(source), *count_notes(config, source.class_names, selections)),
        unlabelled=source.unlabelled,
        selections=selections,
    )


def open_evaluation(config: Config, preprocess: Preprocess, class_names: Sequence[str]) -> Labelled:
    """Opens all of the config's source to evaluate a model of these classes on it: nothing is held out.

    Returns:
        The splits that the source has, or the one split "all". Labels count the model's classes, which are matched by
        name; the notes say which have no images.

    Raises:
        UserError: if the source cannot be read or has a class that the model does not know.
    """
    data = config.data
    source = open_labelled(data, class_names)
    if source.stored is not None:
        _refuse_coarse(source, source.stored, preprocess)
    return Labelled(
        splits={
            name: Examples(*_selection(split), preprocess, skip_corrupt=data.skip_corrupt)
            for name, split in source.splits.items()
        },
        threads=cores() if data.threads is None else data.threads,
        notes=_notes(source),
    )


def _selection(split: Split) -> Selection:
    if isinstance(split, Subset) and split.class_of is None:
        return split.whole, split.chosen
    return split, np.arange(len(split))


def _notes(source: Source) -> tuple[str, ...]:
    names = ", ".join(source.class_names[:NAMED]) + (", …" if len(source.class_names) > NAMED else "")
    return (f"{len(source.class_names)} classes: {names}", *source.notes)


def _refuse_mismatch(data: DataConfig, source: Source, stored: Stored, fitted: Preprocess, trained: Preprocess) -> None:
    """Refuses what was prepared for a model of other images than the run's."""
    size = f"{stored.height}×{stored.width}"
    if stored.squeezed and data.canvas_size is not None and sides(data.canvas_size) != (stored.height, stored.width):
        asked = "×".join(map(str, sides(data.canvas_size)))
        raise UserError(
            f"config.data.canvas_size is {asked}, and {source.description} holds canvases of {size}: leave it out, or "
            f"prepare the data again with --size {written(data.canvas_size)}"
        )
    if fitted.channels != source.channels:
        names = {1: "grey", 3: "RGB"}
        raise UserError(
            f"{source.description} holds {names[source.channels]} images, and the run is of {names[fitted.channels]} "
            f"ones: prepare the data again with --config.data.channels={fitted.channels}, or set "
            f"config.data.channels to {source.channels}"
        )
    _refuse_coarse(source, stored, trained)


def _refuse_coarse(source: Source, stored: Stored, fitted: Preprocess) -> None:
    """Refuses images that were made smaller than what the model takes."""
    wanted = fitted.height, fitted.width
    if not stored.exact and (stored.height < wanted[0] or stored.width < wanted[1]):
        raise UserError(
            f"{source.description} holds images of {stored.height}×{stored.width}, smaller than the model's input of "
            f"{fitted.height}×{fitted.width}, for which they would be enlarged: prepare the data again with --size "
            f"{max(wanted)} or more, or set config.data.image_size to less"
        )


def _preprocess(data: DataConfig, source: Source, pretrained: Preprocess | None) -> Preprocess:
    channels = data.channels or source.channels
    own = pretrained.for_channels(channels) if pretrained else None
    size = data.test_size or data.image_size
    if size is not None:
        height, width = sides(size)
    elif own is not None:
        height, width = own.height, own.width
    elif source.image_size is not None:
        height, width = source.image_size
    else:
        raise UserError(
            f"the images of {source.description} have different sizes: set config.data.image_size to the size to train "
            f"at, in pixels (224, or 64x256 for height and width)"
        )
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != channels:
            raise UserError(f"config.data.{key} needs {channels} numbers, one per channel, found {len(values)}")
    return Preprocess(
        height=height,
        width=width,
        channels=channels,
        mean=data.mean or (own.mean if own else (0.0,) * channels),
        std=data.std or (own.std if own else (1.0,) * channels),
        crop_fraction=data.crop_fraction or (own.crop_fraction if own else 1.0),
        interpolation=data.interpolation or (own.interpolation if own else "bilinear"),
        white_level=data.white_level,
        fitting=data.fit or (own.fitting if own else "crop"),
    )


def _for_training(data: DataConfig, tested: Preprocess) -> Preprocess:
    """Returns the preprocessing at the size that is trained at."""
    if data.image_size is None:
        return tested
    height, width = sides(data.image_size)
    return replace(tested, height=height, width=width)


def _measure(examples: Examples, threads: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel, of pixels scaled to 0…1, rounded to four digits."""
    indices = np.linspace(0, len(examples) - 1, min(len(examples), _MEASURED)).astype(int)
    channels = examples.shape[2]
    total, square, pixels = np.zeros(channels), np.zeros(channels), 0
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for image, _, readable, _ in pool.map(examples.read, indices.tolist()):
            if readable:
                wide = image.astype(np.float64)
                total += wide.sum((0, 1))
                square += (wide * wide).sum((0, 1))
                pixels += image.shape[0] * image.shape[1]
    if not pixels:
        raise UserError("none of the training images can be read")
    mean = total / pixels / 255
    std = np.sqrt(np.maximum(square / pixels / 255**2 - mean**2, 0))
    # A channel that never varies carries nothing, and must not be divided by nothing.
    return tuple(map(float, mean.round(4))), tuple(float(s) or 1.0 for s in std.round(4))
