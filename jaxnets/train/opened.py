"""Data that is open already, for runs of one process that follow each other on it."""

from dataclasses import replace

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.data.order import Order
from jaxnets.data.sources import classes_by_rarity
from jaxnets.preprocess import Preprocess


class Opened:
    """Keeps the data set that was opened last, with the images of it that are in memory.

    A run that wants the same of it, whatever else of its config differs, gets it as it is; images are then neither
    found nor decoded again.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._found: Dataset | None = None

    def open(self, config: Config, preprocess: Preprocess | None, pretrained: Preprocess | None) -> Dataset:
        """Returns the config's data as `open_dataset` does, to which the arguments go.

        Raises:
            UserError: as that does.
        """
        key = (config.data, config.seed, preprocess, pretrained)
        if self._found is None or key != self._key:
            self._found = None  # before another is read: both may not fit
            self._found = open_dataset(config, preprocess, pretrained)
            self._key = key
            return self._found
        order = Order(
            config.seed,
            classes_by_rarity(self._found.training.labels),
            config.data.balance,
            repeats=config.data.repeats,
            batch_size=config.batch_size,
        )
        return replace(self._found, order=order)
