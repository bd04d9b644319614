"""What mistakes cost, and the decisions that cost least.

Elkan 2001, "The foundations of cost-sensitive learning", section 1: with probabilities p of the true class and C[i, j]
what it costs to say j where i is true, the best decision is the j of the least Σ p_i C[i, j]. The probabilities must
mean what they say: calibrate first. A column "none of these" gives what no answer costs (Chow 1970, "On optimum
recognition error and reject tradeoff").
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxnets.errors import UserError, nearest, quoted
from jaxnets.trust.refusal import NONE_OF_THESE

_SHOWN = 5  # names in a message


@dataclass(frozen=True, repr=False, eq=False)
class Costs:
    """A cost matrix in the order of a model's classes."""

    matrix: Float[np.ndarray, "classes decisions"]  # rows: what is true; columns: what is said
    decisions: tuple[str, ...]  # the classes, and perhaps "none of these" behind them

    @property
    def refuses(self) -> bool:
        """Whether no answer is one of the decisions."""
        return len(self.decisions) > len(self.matrix)

    def decide(self, probabilities: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
        """Returns the number of each image's decision, that of least expected cost; of equal ones the first."""
        return self.expected(probabilities).argmin(1)

    def expected(self, probabilities: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n decisions"]:
        """Returns what each decision is expected to cost."""
        return probabilities.astype(np.float64) @ self.matrix

    def paid(self, labels: Int[np.ndarray, " n"], decisions: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns what decisions cost, by what is true."""
        return self.matrix[labels, decisions]


def read_costs(file: Path, class_names: Sequence[str]) -> Costs:
    """Reads a cost matrix: names of what is said in the first row, of what is true in the first column.

    They may stand in any order, and fields be divided by commas, semicolons or tabs.

    Raises:
        UserError: if it cannot be read, is not of these classes, or holds what is no finite number.
    """
    rows = _rows(file)
    form = (
        f"expected a first row ',{','.join(class_names[:2])}…' of what is said and a row for each class of what is true"
    )
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UserError(f"{file} holds no cost matrix: {form}")
    heads, names = rows[0][1:], [row[0] for row in rows[1:]]
    _check_names(file, "row", names, class_names, allowed=())
    _check_names(file, "column", heads, class_names, allowed=(NONE_OF_THESE,))
    table = np.empty((len(names), len(heads)))
    for number, (name, row) in enumerate(zip(names, rows[1:], strict=True)):
        if len(row) != len(heads) + 1:
            raise UserError(f"{file} has {len(row) - 1} costs in the row of {name!r}, expected {len(heads)}: {form}")
        for column, (head, text) in enumerate(zip(heads, row[1:], strict=True)):
            table[number, column] = _cost(file, name, head, text)
    decisions = (
        *class_names,
        *((NONE_OF_THESE,) if NONE_OF_THESE in heads and NONE_OF_THESE not in class_names else ()),
    )
    matrix = table[[names.index(name) for name in class_names]][:, [heads.index(name) for name in decisions]]
    return Costs(matrix, decisions)


def _rows(file: Path) -> list[list[str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"the cost matrix {file} cannot be read ({why}): give a CSV with --costs") from error
    head = text.partition("\n")[0]
    divider = max(",;\t", key=head.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=divider)]
    return [row for row in rows if any(row)]


def _check_names(file: Path, what: str, found: Sequence[str], wanted: Sequence[str], allowed: Sequence[str]) -> None:
    unknown = [name for name in found if name not in wanted and name not in allowed]
    missing = [name for name in wanted if name not in found]
    doubled = sorted({name for name in found if found.count(name) > 1})
    if unknown:
        raise UserError(
            f"{file} has a {what} {quoted(unknown[0])}, which is no class of the model{nearest(unknown[0], wanted)}: "
            f"its {len(wanted)} classes are {_listed(wanted)}"
        )
    if missing:
        raise UserError(
            f"{file} has {len(found)} {what}s and none for {_listed(missing)}: it needs a {what} for each of the "
            f"{len(wanted)} classes"
        )
    if doubled:
        raise UserError(f"{file} has the {what} {quoted(doubled[0])} twice: leave one of them out")


def _cost(file: Path, name: str, head: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{file} has {quoted(text)} as the cost of saying {head!r} where {name!r} is true: give a number"
        )
    return value


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
