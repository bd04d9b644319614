"""An evaluation from its options to its answers: what `jaxnets.evaluate` and the command have in common."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.evaluate.calibrate import Wanted
from jaxnets.evaluate.card.write import card_of
from jaxnets.evaluate.files import write_file
from jaxnets.evaluate.further import Further, ask_further, table_over, tabulate
from jaxnets.evaluate.opened import open_model
from jaxnets.evaluate.options import Options, described, signature
from jaxnets.evaluate.run import Evaluation, judge_run
from jaxnets.evaluate.runs_table import Runs
from jaxnets.evaluate.write import write_report
from jaxnets.run.directory import open_run
from jaxnets.run.storage import Place


def evaluate(workdir: str | os.PathLike[str] | None = None, **words: Any) -> dict[str, Any]:
    """Evaluates a run, every example of a split exactly once, and answers what `python -m jaxnets.evaluate` does.

        jaxnets.evaluate("runs/x")["accuracy"]
        jaxnets.evaluate("runs/x", calibrate=True, familiar=True, precision=0.95, conformal=0.95)
        jaxnets.evaluate("runs/x", against="runs/y", by="site", corruptions=["fog", "noise"], out="report")

    Its words are the command's, with _ for -. One that may stand alone there is True here, and one that takes several
    takes a list, or one. The report is written where `out` says, and not at all without it.

    Args:
        {words}

    Returns:
        What metrics.json holds: accuracy, loss, count, per_class, …; of a table without a run its rows, as `table`.

    Raises:
        UserError: if the run, the split or the data is missing, if the data is not the run's, or a word is wrong.
    """
    options = Options.of(workdir=workdir, **words)
    if options.out is None and (options.parquet or options.no_page):
        name = "parquet" if options.parquet else "no_page"
        raise UserError(
            f"{name} is of the report, and none is written: say with out where it goes, or leave {name} out"
        )
    use_compilation_cache()
    answer = ask(options)
    if options.out is not None and jax.process_index() == 0:
        answer.write(options.out)
    return answer.metrics


_ABOUT = evaluate.__doc__ or ""  # none under python -OO
_INDENT = " " * (_ABOUT.find("{words}") - _ABOUT.rfind("\n", 0, _ABOUT.find("{words}")) - 1)
evaluate.__doc__ = _ABOUT.replace("{words}", f"\n{_INDENT}".join(described()))
evaluate.__dict__["__signature__"] = signature()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of an evaluation, and may be written as a report."""

    options: Options
    evaluation: Evaluation | None  # None for a table over runs alone
    further: Further
    runs: Runs | None = None  # of such a table

    @property
    def metrics(self) -> dict[str, Any]:
        """As metrics.json holds them."""
        return self.further.metrics if self.evaluation is None else self.evaluation.metrics

    def write(self, folder: Place) -> list[str]:
        """Writes the report, and returns the names of its chief files.

        Raises:
            UserError: if one cannot be written.
        """
        if self.runs is not None:
            return _write_table(self.runs, folder)
        assert self.evaluation is not None
        page = not self.options.no_page
        sections = self.further.sections() if page else []
        names = write_report(self.evaluation, folder, page=page, parquet=self.options.parquet, more=sections)
        card = card_of(self.evaluation.run, folder)
        return names if card is None else [*names, card.path.name]


def ask(options: Options) -> Answer:
    """Evaluates, and answers what else is asked; on several hosts each calls this.

    Raises:
        UserError: if it cannot be answered.
    """
    if options.workdir is None and options.model is None:
        runs, found = table_over(options), Further()
        tabulate(runs, found)
        return Answer(options=options, evaluation=None, further=found, runs=runs)
    wanted = Wanted(
        temperature=options.calibrate,
        precision=options.precision,
        coverage=options.coverage,
        conformal=options.conformal,
        familiar=options.familiar,
        split=options.fit_on,
    )
    if options.workdir is not None:
        run, model = open_run(options.workdir), options.model
    else:
        assert options.model is not None  # Options has checked it
        assert options.source is not None
        run, model = open_model(options.model, options.source, options.checkpoint, options.weights), None
    evaluation = judge_run(
        run,
        split=options.split,
        batch_size=options.batch_size,
        checkpoint=options.checkpoint,
        weights=options.weights,
        source=options.source,
        choose_on=options.thresholds,
        model=None if model is None else Path(model),
        tta=options.tta,
        size=options.size,
        class_map=options.class_map,
        wanted=wanted,
        costs=options.costs,
    )
    found = ask_further(options, evaluation)
    evaluation.metrics.update(found.metrics)
    return Answer(options=options, evaluation=evaluation, further=found)


def _write_table(runs: Runs, folder: Place) -> list[str]:
    from jaxnets.evaluate.page.runs import page

    contents = {"runs.csv": runs.to_csv(), "runs.html": page(runs)}
    for name, content in contents.items():
        write_file(folder / name, content.encode("utf-8", "backslashreplace"))
    return list(contents)
