"""What of a report goes to TensorBoard: the confusion matrix."""

import logging
import shutil
from pathlib import Path

from jaxnets.track.tensorboard import TensorBoard

_log = logging.getLogger(__name__)

_CONFUSION = "confusion.png"


def show_confusion(tensorboard: Path, report: Path, step: int | None) -> None:
    """Puts the confusion matrix of a report among TensorBoard's images, in place of that of an earlier report.

    It is a run of its own there: of one that is still written to, TensorBoard would lose sight.
    """
    file, folder = report / _CONFUSION, tensorboard / "report"
    if not file.is_file():  # of several labels, or without a page, there is none
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
        board = TensorBoard(folder, 0)
        board.image("confusion", file.read_bytes(), step or 0)
        board.close()
    except OSError as error:
        _log.warning("%s cannot be shown in TensorBoard (%s)", file, error.strerror)
