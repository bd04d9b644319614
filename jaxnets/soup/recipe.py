"""Which checkpoints go into a soup, and what comes of them (Wortsman et al. 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import jax
import numpy as np

Recipe = Literal["greedy", "uniform"]
RECIPES: tuple[Recipe, ...] = ("greedy", "uniform")
Score = tuple[float, float]  # larger is better

Judged = TypeVar("Judged")  # weights, with what validation says of them


@dataclass(frozen=True)
class Mixture(Generic[Judged]):
    used: tuple[int, ...]  # numbers of the ingredients, the best first
    judged: Judged


def choose(
    singles: Sequence[Judged],
    mix: Callable[[Sequence[int]], Judged],
    score: Callable[[Judged], Score],
    recipe: Recipe = "greedy",
) -> Mixture[Judged]:
    """Returns the soup, or the best single ingredient where the soup is not better.

    Greedy is recipe 1 of the paper: from the best ingredient on, each of the others in the order of their scores is
    added, and stays where the soup with it scores at least as well as without. Uniform takes all of them.

    Args:
        singles: the ingredients, judged each by itself.
        mix: judges the average of the ingredients of these numbers.
        score: of what was judged.
    """
    order = sorted(range(len(singles)), key=lambda number: score(singles[number]), reverse=True)
    best = Mixture((order[0],), singles[order[0]])
    if recipe == "uniform":
        soup = Mixture(tuple(order), mix(order))
    else:
        soup = best
        for number in order[1:]:
            candidate = (*soup.used, number)
            judged = mix(candidate)
            if score(judged) >= score(soup.judged):
                soup = Mixture(candidate, judged)
    return soup if score(soup.judged) > score(best.judged) else best


def mean(trees: Sequence[Any]) -> Any:
    """Returns the mean of trees of arrays, added up in float64 and in the dtype of the first."""

    def mean_of(*leaves: np.ndarray) -> np.ndarray:
        total = np.zeros(leaves[0].shape)
        for x in leaves:
            total += x
        return (total / len(leaves)).astype(leaves[0].dtype)

    return jax.tree.map(mean_of, *trees)
