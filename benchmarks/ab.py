"""Simulates A/B tests that are looked at every 100 records: how often they err, and what they find how soon."""

import numpy as np
from scipy.stats import norm

from jaxnets.monitor.ab.compare import Bounds, looks_at_pairs, looks_of
from jaxnets.monitor.ab.sequential import Looks, always_valid_p, half_width

ALPHA = 0.05
SPLITS = {"1:1": 0.5, "9:1": 0.1, "99:1": 0.01}  # share of B's records
CORRELATION = 0.7  # of the mistakes of two models on the same images: what both have right by one draw of its hardness


def add_options(parser) -> None:
    parser.add_argument("--runs", type=int, default=2000, help="simulated A/B tests of each kind")
    parser.add_argument("--records", type=int, default=20_000, help="of both models together")


def ab(options) -> None:
    """Prints a table of false alarms, and one of what is found."""
    bounds, random = Bounds(), np.random.default_rng(0)
    print(f"{options.runs:,} runs of {options.records:,} records, looked at every {bounds.every}, α = {ALPHA}\n")
    print("| accuracy | A:B | false alarms | of an ordinary test, looked at as often | intervals that ever miss |")
    print("|---|---|---|---|---|")
    for accuracy in (0.5, 0.9, 0.99):
        for kind in (*SPLITS, "pairs"):
            looks, ends = drawn(random, options, accuracy, accuracy, kind, bounds)
            if not len(ends):
                continue
            alarms = (always_valid_p(looks, bounds.effect)[:, -1] <= ALPHA).mean()
            ordinary = 2 * norm.sf(np.abs(looks.difference) / np.sqrt(looks.variance))
            other, _ = drawn(random, options, accuracy, accuracy - 0.02, kind, bounds)
            half = half_width(other, bounds.effect, ALPHA)
            missed = (np.abs(other.difference + 0.02) > half).any(1).mean()
            print(
                f"| {accuracy:.0%} | {kind} | {alarms:.2%} | {(ordinary <= ALPHA).any(1).mean():.0%} | {missed:.2%} |"
            )
    print("\n| accuracy | A:B | difference | found | records until then, median |\n|---|---|---|---|---|")
    for accuracy in (0.5, 0.9):
        for kind in ("1:1", "9:1", "pairs"):
            for difference in (0.01, 0.02, 0.05):
                looks, ends = drawn(random, options, accuracy, accuracy - difference, kind, bounds)
                found = always_valid_p(looks, bounds.effect) <= ALPHA
                first = np.where(found.any(1), found.argmax(1), found.shape[1])
                number = int(np.median(first))
                needed = f"{ends[number]:,}" if number < found.shape[1] else "–"
                print(f"| {accuracy:.0%} | {kind} | {difference:.0%} | {found.any(1).mean():.0%} | {needed} |")


def drawn(random, options, a: float, b: float, kind: str, bounds: Bounds) -> tuple[Looks, np.ndarray]:
    """Returns looks at models that are right so often, and after how many records, or pairs, each look is."""
    ends = np.arange(bounds.every, options.records + 1, bounds.every)
    if kind == "pairs":
        ends = ends[ends <= options.records // 2]
        return looks_at_pairs(pairs(random, options.runs, options.records // 2, a, b), bounds), ends
    seen_b = np.rint(SPLITS[kind] * ends).astype(int)
    enough = (seen_b >= bounds.least_records) & (ends - seen_b >= bounds.least_records)
    ends, seen_b = ends[enough], seen_b[enough]
    seen_a = ends - seen_b
    right_a, right_b = (
        (random.random((options.runs, seen.max(initial=0)), np.float32) < share).astype(np.float64)
        for seen, share in ((seen_a, a), (seen_b, b))
    )
    return looks_of(right_a, right_b, seen_a, seen_b), ends


def pairs(random, runs: int, count: int, a: float, b: float) -> np.ndarray:
    """Returns of images whether B has them right, less whether A has: often both have by the same luck."""
    shared = random.random((runs, count), np.float32)
    own = random.random((runs, count), np.float32) < CORRELATION
    other = np.where(own, shared, random.random((runs, count), np.float32))
    return (other < b).astype(np.float64) - (shared < a)
