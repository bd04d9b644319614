"""TensorBoard's event files, a tracker that lies in the run directory."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from jaxnets.track.tracker import Ended, Row, numbers_in


class TensorBoard:
    """Writes into `folder`; what events of steps after `resumed_step` an earlier session left there is void."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1)

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for key, value in numbers_in(row).items():
                if "/" in key:
                    self._writer.add_scalar(key, value, row["step"])
        self._writer.flush()

    def image(self, name: str, png: bytes, step: int) -> None:
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def files(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Leaves them out: TensorBoard shows none."""

    def close(self, ended: Ended | None = None, why: str = "") -> None:
        self._writer.close()
