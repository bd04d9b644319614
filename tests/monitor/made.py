"""Records that no service has written."""

from pathlib import Path

import numpy as np

from jaxnets.monitor.records import PROJECTED, RECORD, SUFFIX, About, Records

CLASSES = ("cat", "dog", "cow")


def about(**changed) -> About:
    given = {"model": "it", "architecture": "none", "fingerprint": "0" * 16, "step": 1, "labels": CLASSES}
    given |= {"several_labels": False, "calibrated": True, "features": 8}
    return About(**{**given, **changed})


def rows(count: int, seed: int = 0, **changed) -> np.ndarray:
    """Returns records, one a second; what is `changed` is added to that column, or takes the place of its integers."""
    random = np.random.default_rng(seed)
    found = np.zeros(count, RECORD)
    found["id"], found["time"] = np.arange(1, count + 1), 1.7e9 + np.arange(count)
    found["label"], found["truth"], found["latency"] = random.integers(0, 3, count), -1, 0.01
    found["confidence"], found["energy"] = random.beta(8, 2, count), random.normal(-8, 2, count)
    found["brightness"], found["sharpness"] = random.beta(4, 6, count), random.gamma(4, 0.02, count)
    found["width"], found["height"] = random.integers(200, 400, (2, count))
    found["projection"] = random.normal(0, 1, (count, PROJECTED))
    for name, value in changed.items():
        found[name] = value if found[name].dtype.kind in "iub" else found[name] + np.asarray(value, np.float32)
    return found


def records(count: int, seed: int = 0, **changed) -> Records:
    return Records(about=about(), rows=rows(count, seed, **changed))


def write(folder: Path, found: np.ndarray, of: About | None = None, name: str = "a") -> Path:
    """Writes a file of records into a model's folder, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}{SUFFIX}"
    file.write_bytes((of or about()).to_line() + found.tobytes())
    return file
