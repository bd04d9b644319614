"""How a run's directory and its trackers come together: while it trains, and at any time after."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from jaxnets import exit
from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.run.checkpoints import steps
from jaxnets.run.curves import read_rows
from jaxnets.run.directory import RunDirectory
from jaxnets.run.storage import Place
from jaxnets.track.about import about, session_tags
from jaxnets.track.destinations import destinations
from jaxnets.track.ledger import Ledger
from jaxnets.track.mirror import Destination, Mirror
from jaxnets.track.sender import Sender, reason

_log = logging.getLogger(__name__)


def senders(
    run: RunDirectory, config: Config, folder: Place, step: int, hardware: str, say: Callable[[str], None]
) -> list[Sender]:
    """Returns what sends a run to its trackers while it trains, from `step` on; none where it has none.

    `folder` is where its files are written: the run directory, unless that lies in a bucket.
    """
    found = destinations(config.track)
    if not found:
        return []
    ledger = Ledger(run.tracking)
    ledger.note(session_tags(hardware))
    for each in found:
        newest = max(ledger.kept(each.place).steps.values(), default=-1)
        if newest > step:
            _log.warning(
                "%s has rows up to step %d, and the run goes on from step %d: those in between stay there as they are",
                each.title,
                newest,
                step,
            )
    mirrors = _mirrors(run, config, ledger, found, folder)
    return [Sender(mirror, partial(_newest, run), say, command_for(run)) for mirror in mirrors]


def command_for(run: RunDirectory) -> str:
    return f"python -m jaxnets.track --workdir {run.path}"


def _newest(run: RunDirectory) -> int:
    return max(steps(run.checkpoints), default=-1)


def _mirrors(
    run: RunDirectory, config: Config, ledger: Ledger, found: Sequence[Destination], folder: Place
) -> list[Mirror]:
    return [Mirror(each, ledger, partial(about, run, config, ledger), folder) for each in found]


def send(run: RunDirectory, config: Config, *, all_rows: bool = False, row: bool = True) -> dict[str, str | Exception]:
    """Sends to the trackers of `config` what they lack of a run that nobody trains just now, and its report.

    Args:
        run: whose directory is read.
        config: says where to; the run's own, or with another `track`.
        all_rows: whether rows that no checkpoint covers are sent too, which a session that goes on would write anew.
        row: whether the report's numbers are figures of the run, beside being in its files.

    Returns:
        By the tracker's title, where the run is to be seen, or why it is not.

    Raises:
        UserError: if a tracker is not installed, or the run is being trained.
    """
    found = destinations(config.track)
    outcomes: dict[str, str | Exception] = {}
    if not found:
        return outcomes
    run.check_writable()
    with run.locked():
        ledger = Ledger(run.tracking)
        lines = None if all_rows else _covered(run)
        for mirror in _mirrors(run, config, ledger, found, run.path):
            try:
                address = mirror.open().address
                mirror.sync(lines)
                mirror.report(run.report, row=row)
                mirror.close(None)
                outcomes[mirror.destination.title] = address
            except Exception as error:
                outcomes[mirror.destination.title] = error
    return outcomes


def _covered(run: RunDirectory) -> int | None:
    """Returns how many lines of metrics.jsonl a checkpoint covers, None where all are."""
    newest = _newest(run)
    return next((number for number, row in enumerate(read_rows(run.metrics)) if row["step"] > newest), None)


def catch_up(run: RunDirectory, config: Config, *, row: bool = True, seconds: float = 120.0) -> None:
    """As `send`, for commands whose work is done: it waits so long at most, and what fails is only said."""
    if config.track.mlflow is None and config.track.wandb is None:
        return
    said: list[str] = []

    def work() -> None:
        try:
            for title, outcome in send(run, config, row=row).items():
                if isinstance(outcome, Exception):
                    said.append(f"{title}: {reason(outcome)}; {command_for(run)} sends what it lacks")
        except UserError as error:
            said.append(f"nothing was sent to trackers: {error}")

    thread = threading.Thread(target=work, name="trackers", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        exit.end_at_once()
        said.append(f"a tracker is slow, or hangs: {command_for(run)} sends what it lacks")
    for sentence in said:
        _log.warning("%s", sentence)
