"""Tests of whether two samples of embeddings are of one distribution, all their dimensions together."""

import numpy as np
from jaxtyping import Float

from jaxnets.monitor.drift import Outcome

MOST = 1000  # embeddings of each sample that are looked at: it bounds time and memory
_PERMUTATIONS = 1999  # the smallest probability is 1 / (1 + so many)
_AT_ONCE = 500


def scaled(
    reference: Float[np.ndarray, "m d"], window: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "n d"]]:
    """Returns both with mean 0 and deviation 1 of the reference in each dimension; those that never vary are left out.

    What is far off is cut at 20 deviations, so that a single embedding does not rule all.
    """
    mean, deviation = reference.mean(0), reference.std(0)
    alive = (deviation > 1e-6 * max(float(deviation.max(initial=0)), 1e-30)) | (window.std(0) > 0)
    safe = np.where(deviation > 0, deviation, 1.0)
    first, second = (np.clip((x - mean) / safe, -20, 20)[:, alive] for x in (reference, window))
    return first, second


def some(values: Float[np.ndarray, "n d"], random: np.random.Generator, most: int = MOST) -> Float[np.ndarray, "m d"]:
    """Returns at most so many rows, drawn at random."""
    return values if len(values) <= most else values[random.choice(len(values), most, replace=False)]


def discrepancy(reference: Float[np.ndarray, "m d"], window: Float[np.ndarray, "n d"], seed: int = 0) -> Outcome:
    """Returns the maximum mean discrepancy's test by permutations (Gretton et al. 2012, equation 5, biased).

    The kernel is exp(−‖x − y‖² / (2 s²)), with s the median distance. The effect is the discrepancy itself over that of
    points that are infinitely far apart, which is at most 1.
    """
    random = np.random.default_rng(seed)
    x, y = some(reference, random), some(window, random)
    joined = np.concatenate([x, y]).astype(np.float32)
    m, n = len(x), len(y)
    squares = (joined * joined).sum(1)
    kernel = np.maximum(squares[:, None] + squares[None] - 2 * joined @ joined.T, 0)
    pairs = kernel[np.triu_indices(min(len(joined), 1000), 1)]
    width = float(np.median(pairs[pairs > 0])) if (pairs > 0).any() else 1.0
    np.exp(kernel / np.float32(-width), out=kernel)  # 2 s², s² being half the median of squares
    sign = np.concatenate([np.full(m, 1 / m), np.full(n, -1 / n)]).astype(np.float32)
    observed = float(sign @ kernel @ sign)
    larger, left = 0, _PERMUTATIONS
    while left:
        signs = random.permuted(np.tile(sign, (min(_AT_ONCE, left), 1)), axis=1)
        found = np.einsum("pi,pi->p", signs @ kernel, signs)
        larger += int((found >= observed - 1e-9).sum())
        left -= len(signs)
    return Outcome(observed, (1 + larger) / (1 + _PERMUTATIONS), float(np.sqrt(max(observed, 0.0) / 2)))


def classifier_test(reference: Float[np.ndarray, "m d"], window: Float[np.ndarray, "n d"], seed: int = 0) -> Outcome:
    """Returns the classifier two-sample test (Lopez-Paz & Oquab 2017) by a logistic regression.

    It sees each dimension and the products of any two, so that it tells means and covariances apart. Half of each
    sample trains it; on the other half the statistic is the area under its ROC curve, with the probability of Mann and
    Whitney that it is above one half by chance. The effect is 2 · area − 1.
    """
    from scipy.stats import mannwhitneyu
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(seed)
    both = [_with_products(random.permutation(some(values, random))) for values in (reference, window)]
    (x_train, x_test), (y_train, y_test) = ((rows[: len(rows) // 2], rows[len(rows) // 2 :]) for rows in both)
    scale = np.concatenate([x_train, y_train]).std(0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=500)
    labels = np.repeat([0, 1], [len(x_train), len(y_train)])
    model.fit(np.concatenate([x_train, y_train]) / scale, labels)
    of_x, of_y = (model.decision_function(rows / scale) for rows in (x_test, y_test))
    found = mannwhitneyu(of_y, of_x, alternative="greater", method="asymptotic")
    area = float(found.statistic) / (len(of_x) * len(of_y))
    return Outcome(area, float(found.pvalue), max(2 * area - 1, 0.0))


def _with_products(values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
    rows, columns = np.triu_indices(values.shape[1])
    return np.concatenate([values, values[:, rows] * values[:, columns]], 1).astype(np.float64)
