"""What smaller forms of a trained network cost in accuracy, and gain in time and in the size of the file.

python benchmarks/smaller.py --whole RUN [LABEL=RUN …] [--batch 32] [--repeats 40] [--json FILE] [--plot FILE]

Each run is exported as an ONNX file with its preprocessing inside, and the whole one also in 8 bits after training
(calibrated on its own training images) and in float16. Accuracy is that of ONNX Runtime's answers on the whole test
split. For the times all sessions live in one process, each with one thread, and take turns; the least of each is taken
as well as the median, for whatever else the machine does. Of sizes one is of the file, one after gzip: zeros and 8
bits take less there.
"""

import argparse
import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from machine import machine

import jaxnets
from jaxnets.export.calibration import batches, open_calibration
from jaxnets.export.int8 import calibrate, quantisable, quantise
from jaxnets.export.onnx_export import export_onnx

WHOLE = "float32"
PAUSE = 0.02  # seconds before each measurement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", required=True, help="the run that all others came from")
    parser.add_argument("runs", nargs="*", metavar="LABEL=RUN")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print(f"{machine()}; onnxruntime {onnxruntime.__version__}; one thread, {options.repeats} repeats")

    whole = jaxnets.load(options.whole, engine="jax")
    calibration = open_calibration(options.whole, whole, None)
    if calibration.labels is None:
        parser.error(f"{options.whole} has no test split")
    graphs = {WHOLE: export_onnx(whole, normalised_inside=True)}
    graphs["float16"] = export_onnx(whole, normalised_inside=True, dtype="float16")
    prepared = quantisable(graphs[WHOLE])
    graphs["int8 after training"] = quantise(prepared, calibrate(prepared, whole, calibration.images))
    for each in options.runs:
        label, _, run = each.partition("=")
        graphs[label] = export_onnx(jaxnets.load(run, engine="jax"), normalised_inside=True)
    sessions = {label: open_session(graph) for label, graph in graphs.items()}
    rows: dict[str, dict[str, Any]] = {}
    for label, session in sessions.items():
        found = np.concatenate([session.run(None, {"image": some})[0] for some in batches(calibration.scored)])
        accuracy = float((found.argmax(-1) == calibration.labels).mean())
        small = len(gzip.compress(graphs[label], 6))
        rows[label] = {"accuracy": accuracy, "bytes": len(graphs[label]), "gzipped": small}
    for batch in (1, options.batch):
        for label, times in timed(sessions, calibration.scored[:batch], options.repeats).items():
            rows[label][f"ms_{batch}"] = {"median": 1e3 * statistics.median(times), "min": 1e3 * min(times)}
    tested = f"test accuracy ({len(calibration.scored):,} images)"
    print(
        f"\n| | {tested} | file, kB | gzip, kB | 1 image, ms | {options.batch} images, ms |\n|---|---|---|---|---|---|"
    )
    for label, row in rows.items():
        times = " | ".join(gained(row, rows[WHOLE], f"ms_{batch}") for batch in (1, options.batch))
        print(
            f"| {label} | {row['accuracy']:.2%} | {row['bytes'] / 1e3:,.0f} | {row['gzipped'] / 1e3:,.0f} | {times} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "batch": options.batch, "rows": rows}, indent=1))
    if options.plot:
        draw(rows, f"ms_{options.batch}", options.batch, options.plot)


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def timed(sessions: dict[str, Any], images: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each call; the first round warms up."""
    calls = 20 if len(images) == 1 else 1
    times: dict[str, list[float]] = {label: [] for label in sessions}
    for repeat in range(repeats + 1):
        for label, session in sessions.items():
            time.sleep(PAUSE)
            session.run(None, {"image": images})
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, {"image": images})
            if repeat:
                times[label].append((time.perf_counter() - start) / calls)
    return times


def gained(row: dict[str, Any], whole: dict[str, Any], what: str) -> str:
    return f"{row[what]['median']:.2f} ({whole[what]['median'] / row[what]['median']:.2f} ×)"


def draw(rows: dict[str, dict[str, Any]], what: str, batch: int, file: Path) -> None:
    from matplotlib import pyplot

    figure, (by_time, by_size) = pyplot.subplots(1, 2, figsize=(10, 4.5), sharey=True)
    for number, (label, row) in enumerate(rows.items()):
        for axes, x in ((by_time, row[what]["median"]), (by_size, row["gzipped"] / 1e3)):
            axes.scatter(x, 100 * row["accuracy"], s=60, marker="os^DvP*Xph<>"[number % 12], alpha=0.8, label=label)
    by_time.set_xlabel(f"milliseconds for {batch} images, one thread")
    by_size.set_xlabel("kB of the file after gzip")
    by_time.set_ylabel("test accuracy, %")
    for axes in (by_time, by_size):
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    by_size.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
