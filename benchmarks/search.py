"""Recall, latency and build time of the index that jaxnets.search makes, on vectors that are drawn.

python benchmarks/search.py [--count 1000000] [--numbers 256] [--queries 1000] [--folder DIR] [--kind ivf] [--json FILE]

The vectors are clustered, as those of a trained network are: 1,000 classes of unequal size (Zipf, exponent 0.5), each a
Gaussian. The variance falls as 1 / k over the coordinates of a random basis, as much of it between the classes as
within them; then all have length 1. Queries are drawn likewise and are not in the index. `--noise` makes them uniform
noise on the sphere, which no index of this kind can search, and no network gives.

Recall at 10 is against FAISS's flat index. Latency is that of one query after another, on the memory-mapped file.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from machine import machine

from jaxnets.search import kinds

CLASSES, ROWS = 1000, 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--numbers", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kind", choices=("flat", "hnsw", "ivf"), help="default: by the number of vectors")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the index is written (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; faiss {faiss.__version__}")
    vectors, queries = draw(options.count, options.numbers, options.queries, noise=options.noise)
    began, busy = time.perf_counter(), time.process_time()
    index, plan = kinds.build(vectors, options.kind)
    build_seconds, build_cpu = time.perf_counter() - began, time.process_time() - busy
    print(f"built in {build_seconds:.1f} s ({build_cpu:.1f} s of CPU time): {plan.words()}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "vectors.faiss")
        kinds.write(index, path)
        del index
        mapped = kinds.read(path, mapped=True)
        for query in queries[:50]:  # pages that every query needs
            kinds.nearest(mapped, plan, query[None], 10)
        seconds, rows = [], []
        for query in queries:
            began = time.perf_counter()
            _, found = kinds.nearest(mapped, plan, query[None], 10)
            seconds.append(time.perf_counter() - began)
            rows.append(found[0])
        size = path.stat().st_size
    flat = faiss.IndexFlatIP(options.numbers)
    flat.add(vectors)
    faiss.omp_set_num_threads(1)
    began = time.perf_counter()
    flat_seconds = []
    exact = np.empty((len(queries), 10), np.int64)
    for i, query in enumerate(queries):
        began = time.perf_counter()
        exact[i] = flat.search(query[None], 10)[1][0]
        flat_seconds.append(time.perf_counter() - began)
    recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]))
    p50, p99 = (1e3 * float(np.percentile(seconds, p)) for p in (50, 99))
    result = {
        "machine": machine(), "count": options.count, "numbers": options.numbers, "plan": vars(plan),
        "build_seconds": build_seconds, "build_cpu_seconds": build_cpu, "bytes": size, "recall_at_10": recall,
        "p50_ms": p50, "p99_ms": p99, "flat_p50_ms": 1e3 * float(np.median(flat_seconds)),
    }  # fmt: skip
    print(f"recall at 10: {recall:.4f}; p50 {p50:.2f} ms, p99 {p99:.2f} ms; flat p50 {result['flat_p50_ms']:.1f} ms")
    print(f"file: {size / 2**20:,.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def draw(count: int, numbers: int, queries: int, *, noise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors of length 1 and queries like them."""
    random = np.random.default_rng(0)
    total = count + queries
    found = np.empty((total, numbers), np.float32)
    deviation = (1 / np.sqrt(np.arange(1, numbers + 1))).astype(np.float32)
    centres = random.standard_normal((CLASSES, numbers), np.float32) * deviation
    share = 1 / np.sqrt(np.arange(1, CLASSES + 1))
    basis = np.linalg.qr(random.standard_normal((numbers, numbers)))[0].astype(np.float32)
    for start in range(0, total, ROWS):
        rows = min(ROWS, total - start)
        drawn = random.standard_normal((rows, numbers), np.float32)
        if not noise:
            classes = random.choice(CLASSES, rows, p=share / share.sum())
            drawn = (centres[classes] + drawn * deviation) @ basis
        found[start : start + rows] = kinds.unit(drawn)
    return found[:count], found[count:]


if __name__ == "__main__":
    main()
