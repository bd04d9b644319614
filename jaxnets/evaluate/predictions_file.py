"""predictions.csv, or Parquet: what was said of each image, for a spreadsheet or another program."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from jaxnets.engine.onnx_file import require
from jaxnets.evaluate.predictions import Predictions

_EXACT = 10_000_000  # probabilities, up to which each is written with 6 significant digits
_DIGITS = 6  # after the point of more than that many
_ROWS = 1000  # images at a time

Said = Sequence[str]  # of each image: its class, or its labels in one text


def header(class_names: Sequence[str]) -> list[str]:
    return ["path", "label", "prediction", "confidence", *(f"p_{name}" for name in class_names)]


def named(chosen: np.ndarray, class_names: Sequence[str], separator: str) -> list[str]:
    """Returns in words the class of each image (int), or its labels (bool `[n, classes]`)."""
    if chosen.ndim == 1:
        return [class_names[i] for i in chosen.tolist()]
    return [separator.join(class_names[i] for i in np.flatnonzero(row).tolist()) for row in chosen]


def as_csv(
    predictions: Predictions,
    probabilities: Float32[np.ndarray, "n classes"],
    confidence: Float32[np.ndarray, " n"],
    labels: Said,
    said: Said,
) -> Iterator[bytes]:
    """Yields the lines of predictions.csv, some at a time.

    Args:
        predictions: whose paths are written.
        probabilities: of each image and class.
        confidence: of each answer.
        labels: what each image is.
        said: what was said of it.
    """
    yield _line([header(predictions.class_names)])
    numbers = _Numbers() if probabilities.size > _EXACT else None
    for start in range(0, len(predictions), _ROWS):
        rows = range(start, min(start + _ROWS, len(predictions)))
        form = ".6g" if numbers is None else f".{_DIGITS}f"
        before = [_line([[predictions.paths[i], labels[i], said[i], f"{confidence[i]:{form}}"]]) for i in rows]
        some = probabilities[rows.start : rows.stop]
        if numbers is None:
            # All of a row in one go, which takes half the time of each number by itself.
            of_row = ",%.6g" * some.shape[1] + "\n"
            after = [(of_row % tuple(row)).encode() for row in some.tolist()]
        else:
            after = numbers.rows(some)
        yield b"".join(line.rstrip(b"\r\n") + tail for line, tail in zip(before, after, strict=True))


def as_parquet(
    predictions: Predictions,
    probabilities: Float32[np.ndarray, "n classes"],
    confidence: Float32[np.ndarray, " n"],
    labels: Said,
    said: Said,
) -> bytes:
    """Returns the same table as a Parquet file, with the probabilities as they are (float32).

    Raises:
        UserError: if pyarrow is not installed.
    """
    require("pyarrow", "parquet")
    import pyarrow as pa
    import pyarrow.parquet

    columns = [
        pa.array([path.encode("utf-8", "backslashreplace").decode() for path in predictions.paths]),
        *(pa.array(values, pa.string()) for values in (labels, said)),
        pa.array(confidence),
        *(pa.array(np.ascontiguousarray(column)) for column in probabilities.T),
    ]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_arrays(columns, header(predictions.class_names)), buffer)
    return buffer.getvalue()


class _Numbers:
    """Writes probabilities with 6 digits after the point, many at a time: each has 9 bytes, and its text is looked up.

    Of 50 million, Python's own formatting would take half a minute.
    """

    def __init__(self) -> None:
        steps = 10**_DIGITS
        texts = "".join(f",{k // steps}.{k % steps:0{_DIGITS}d}" for k in range(steps + 1))
        self._texts = np.frombuffer(texts.encode(), f"V{_DIGITS + 3}")
        self._steps = steps

    def rows(self, probabilities: Float32[np.ndarray, "m classes"]) -> list[bytes]:
        at = np.rint(probabilities.astype(np.float64) * self._steps).astype(np.int64)
        return [row.tobytes() + b"\n" for row in self._texts[at]]


def _line(rows: Sequence[Sequence[str]] | Iterator[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
