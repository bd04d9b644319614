"""Which index of FAISS holds the vectors, by how many there are, and how far it looks for what is nearest.

    flat    compares with every vector: exact, up to 16.8 million numbers (64 MiB; 65,536 vectors of 256)
    hnsw    a graph of neighbours (Malkov & Yashunin 2018), up to 250,000 vectors: quick, and grows well
    ivf     lists of vectors around centres (Jégou et al. 2011): built in minutes where a graph would take an hour

Vectors have length 1, and are compared by their inner product: the cosine of their angle. All kinds keep float32.
How far a graph or the lists are searched is chosen when they are built: as far as to find 98 % of the ten nearest of
200 of the vectors (itself not counted), which are known by comparing with all.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from jaxnets.cores import cores
from jaxnets.errors import UserError

Kind = Literal["flat", "hnsw", "ivf"]
_FLAT = 1 << 24  # numbers
_HNSW = 250_000  # vectors
_LINKS, _BREADTH = 32, 80  # of each vector in a graph, and candidates that are looked at for them
_LEARNED, _ROUNDS = 40, 10  # vectors for each centre of the lists, and rounds of k-means
_GROWTH = 4  # times as many vectors, after which lists want more centres
_STALE = 10  # vectors for each that no longer counts, at least
_ASKED, _NEAREST, _RECALL = 200, 10, 0.98
_EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)  # candidates of a graph
_VISITS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)  # lists


@dataclass(frozen=True)
class Plan:
    """How an index is searched, as index.json keeps it."""

    kind: Kind
    effort: int  # candidates of a graph, or lists that are looked at; 0: every vector is
    recall: float | None  # share of the ten nearest that were found when it was built; None: exact
    built: int  # vectors that it was built with

    def words(self) -> str:
        """Says which kind it is and why."""
        if self.kind == "flat":
            return "flat: every vector is compared with, which is exact and quick for so few"
        how = f"{self.effort} candidates" if self.kind == "hnsw" else f"{self.effort} of {centres(self.built):,} lists"
        name = "HNSW" if self.kind == "hnsw" else "IVF"
        return f"{name}: {how} are looked at, which found {self.recall or 0:.1%} of the ten nearest"


def kind_for(count: int, numbers: int) -> Kind:
    """Returns the kind for so many vectors of so many numbers."""
    if count * numbers <= _FLAT:
        return "flat"
    return "hnsw" if count <= _HNSW else "ivf"


def outgrown(plan: Plan, count: int, stale: int, numbers: int) -> bool:
    """Whether an index of so many vectors, of which some no longer count, is better built anew than added to."""
    grown = plan.kind != kind_for(count, numbers) or (plan.kind == "ivf" and count > _GROWTH * plan.built)
    return grown or stale * _STALE > count


def centres(count: int) -> int:
    """Returns the power of two next to 4 · √count."""
    return 1 << round(math.log2(4 * math.sqrt(count)))


def build(vectors: Float32[np.ndarray, "n f"], kind: Kind | None = None) -> tuple[Any, Plan]:
    """Returns an index of FAISS with the vectors in it, and how it is searched."""
    import faiss

    n, f = vectors.shape
    kind = kind or kind_for(n, f)
    index: Any
    faiss.omp_set_num_threads(cores())
    if kind == "flat":
        index = faiss.IndexFlatIP(f)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(f, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BREADTH
    else:
        lists = min(centres(n), max(n // _LEARNED, 1))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(f), f, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical, index.cp.niter, index.cp.seed = True, _ROUNDS, 1234
        learned = np.random.default_rng(0).permutation(n)[: lists * _LEARNED]
        index.train(vectors[np.sort(learned)])
    index.add(vectors)
    return index, _tuned(index, vectors, kind)


def _tuned(index: Any, vectors: Float32[np.ndarray, "n f"], kind: Kind) -> Plan:
    """Returns the least effort that finds enough, or the greatest."""
    import faiss

    n = len(vectors)
    if kind == "flat":
        return Plan(kind, 0, None, n)
    asked = np.random.default_rng(1).permutation(n)[:_ASKED]
    queries = vectors[asked]
    _, near = faiss.knn(queries, vectors, _NEAREST + 1, faiss.METRIC_INNER_PRODUCT)
    known = [set(row.tolist()) - {int(own)} for row, own in zip(near, asked, strict=True)]
    efforts = _EFFORTS if kind == "hnsw" else [visits for visits in _VISITS if visits <= index.nlist]
    recall, effort = 0.0, 0
    for effort in efforts:
        _, rows = nearest(index, Plan(kind, effort, None, n), queries, _NEAREST + 1)
        found = [len(set(row.tolist()) & wanted) / len(wanted) for row, wanted in zip(rows, known, strict=True)]
        recall = float(np.mean(found))
        if recall >= _RECALL:
            break
    return Plan(kind, effort, recall, n)


def nearest(
    index: Any, plan: Plan, queries: Float32[np.ndarray, "q f"], count: int
) -> tuple[Float32[np.ndarray, "q k"], Int64[np.ndarray, "q k"]]:
    """Returns the similarities and the rows of what is nearest to each query, the nearest first; −1: there is none."""
    import faiss

    # Of one query each thread would have too little to do.
    faiss.omp_set_num_threads(1 if len(queries) < cores() else cores())
    library: Any = faiss  # whose stubs lack what SWIG makes
    options: Any = None
    if plan.kind == "hnsw":
        options = library.SearchParametersHNSW(efSearch=max(plan.effort, count))
    elif plan.kind == "ivf":
        options = library.SearchParametersIVF(nprobe=plan.effort)
    return index.search(np.ascontiguousarray(queries), min(count, index.ntotal), params=options)


def write(index: Any, path: Path) -> None:
    """Writes an index; as `read` reads it."""
    import faiss

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise UserError(f"{path} cannot be written: make room or permission for it ({_short(error)})") from error


def read(path: Path, *, mapped: bool) -> Any:
    """Reads an index: into the memory, to be added to, or mapped, so that only what is asked for is read.

    Raises:
        UserError: if it is none.
    """
    import faiss

    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise UserError(f"{path} is no index that FAISS can read ({_short(error)}): build it anew") from error


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][-160:] if str(error) else type(error).__name__


def unit(vectors: Float32[np.ndarray, "n f"]) -> Float32[np.ndarray, "n f"]:
    """Returns vectors of length 1; one of zeros stays so, and is like no other."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
