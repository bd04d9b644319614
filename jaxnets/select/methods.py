"""How images are chosen for labelling: by what a model is unsure of, by what is unlike the rest, or by both."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from jaxnets.answer import decide
from jaxnets.select.centres import k_centre
from jaxnets.select.gradients import plus_plus

_BETA = 10  # candidates of a mix for each image that it chooses (β of Zhdanov 2019)
_ITERATIONS = 20  # of its k-means
_TINY = 1e-12


@dataclass(frozen=True)
class Pool:
    """What a model sees in n images without a label, and in those that have one."""

    vectors: Float32[np.ndarray, "n f"]
    probabilities: Float[np.ndarray, "n classes"]
    labelled: Float32[np.ndarray, "m f"]  # vectors of the images that have a label; for `kcentre`
    several_labels: bool = False
    thresholds: tuple[float, ...] | None = None  # of each label, where an image may have several
    seed: int = field(default=0, kw_only=True)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def bounds(self) -> Float64[np.ndarray, "#classes"]:
        return np.asarray(self.thresholds or (0.5,), np.float64)


@dataclass(frozen=True)
class Choice:
    images: Int64[np.ndarray, " k"]  # in the order in which they were chosen
    scores: Float64[np.ndarray, " n"] | None  # of all images, more for those that are chosen first; None: no such thing


def margins(pool: Pool) -> Float64[np.ndarray, " n"]:
    """Returns the probability of the first class less that of the second (Scheffer et al. 2001).

    Where an image may have several labels: the least distance of a label's probability from its threshold.
    """
    p = pool.probabilities.astype(np.float64)
    if pool.several_labels:
        return np.abs(p - pool.bounds).min(1)
    second, first = np.partition(p, -2, axis=1)[:, -2:].T
    return first - second


def entropies(pool: Pool) -> Float64[np.ndarray, " n"]:
    """Returns −Σ p ln p, in nats; where an image may have several labels, the sum of the labels' own entropies."""
    p = np.clip(pool.probabilities.astype(np.float64), _TINY, 1 - _TINY)
    if pool.several_labels:
        return -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(1)
    p /= p.sum(1, keepdims=True)  # of sigmoids too
    return -(p * np.log(p)).sum(1)


def errors(pool: Pool) -> Float32[np.ndarray, "n classes"]:
    """Returns the gradient of the loss by the logits, if the model's answer were the label: probability − answer."""
    p = pool.probabilities.astype(np.float32)
    if pool.several_labels:
        return p - decide(p, pool.thresholds).astype(np.float32)
    found = p.copy()
    found[np.arange(len(p)), p.argmax(1)] -= 1
    return found


def by_margin(pool: Pool, count: int) -> Choice:
    """Those of the least margin."""
    return _first(-margins(pool), count)


def by_entropy(pool: Pool, count: int) -> Choice:
    """Those of the greatest entropy."""
    return _first(entropies(pool), count)


def by_badge(pool: Pool, count: int) -> Choice:
    """Those whose gradients are large and differ: BADGE (Ash et al. 2020, algorithm 1)."""
    return Choice(plus_plus(errors(pool), pool.vectors, count, np.random.default_rng(pool.seed)), None)


def by_k_centre(pool: Pool, count: int) -> Choice:
    """Those farthest from all that have a label or are chosen: CoreSet (Sener & Savarese 2018, algorithm 1)."""
    return Choice(k_centre(pool.vectors, pool.labelled, count), None)


def by_mix(pool: Pool, count: int) -> Choice:
    """Of the ten times as many that have the least margin, those in the middle of clusters (Zhdanov 2019).

    The clusters are those of k-means, as many as images are wanted, where an image weighs 1 − margin.
    """
    from sklearn.cluster import KMeans

    margin = margins(pool)
    candidates = _first(-margin, min(_BETA * count, len(pool))).images
    if len(candidates) <= count:
        return Choice(candidates, -margin)
    vectors = pool.vectors[candidates]
    distinct = len(np.unique(vectors, axis=0))
    clusters = KMeans(min(count, distinct), n_init=1, max_iter=_ITERATIONS, random_state=pool.seed)
    weights = np.maximum(1 - margin[candidates], 1e-3)  # none is without a say
    distance = clusters.fit(vectors, sample_weight=weights).transform(vectors)
    own = distance[np.arange(len(vectors)), clusters.labels_]
    order = np.lexsort((np.arange(len(vectors)), own, clusters.labels_))
    middles = order[np.r_[True, np.diff(clusters.labels_[order]) != 0]]
    others = np.setdiff1d(np.arange(len(candidates)), middles)  # where images are the same, clusters are fewer
    return Choice(candidates[np.concatenate([np.sort(middles), others[: count - len(middles)]])], -margin)


def at_random(pool: Pool, count: int) -> Choice:
    """Any, drawn from the seed."""
    return Choice(np.random.default_rng(pool.seed).permutation(len(pool))[:count], None)


def _first(scores: Float64[np.ndarray, " n"], count: int) -> Choice:
    return Choice(np.argsort(-scores, kind="stable")[:count], scores)


METHODS: dict[str, Callable[[Pool, int], Choice]] = {
    "margin": by_margin,
    "entropy": by_entropy,
    "badge": by_badge,
    "kcentre": by_k_centre,
    "mix": by_mix,
    "random": at_random,
}
