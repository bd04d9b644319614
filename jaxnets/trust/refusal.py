"""What is kept in model.json of when a model does not answer: bounds, and which of them an image is beyond."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxnets.errors import UserError, quoted

NONE_OF_THESE = "none of these"  # what people read in place of a label
UNLIKE = "unlike the training images"  # begins the reason of what is beyond energy or distance


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """Sets of classes (`jaxnets.trust.conformal`)."""

    quantile: float  # 0 … 1: the set holds the classes of probability ≥ 1 − quantile
    coverage: float  # share of images whose set holds the right class
    images: int | None = None  # held out, that the quantile was chosen on; None: a run of before does not say


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """When the answer is "none of these"; a bound that is None refuses nothing."""

    probability: float | None = None  # of the most probable class, calibrated: below it the answer is unsure
    energy: float | None = None  # above it an image is unlike the training images (`jaxnets.trust.outliers`)
    distance: float | None = None  # in feature space, likewise
    familiar: float | None = None  # what energy and distance were chosen for: share of images like the training images
    precision: float | None = None  # what the probability was chosen for: share of the answers that are right,
    coverage: float | None = None  # or share of the images that are answered
    conformal: Conformal | None = None  # refuses nothing, but says which classes it may be

    @property
    def refuses(self) -> bool:
        """Whether there are images that it refuses."""
        return any(bound is not None for bound in (self.probability, self.energy, self.distance))

    @property
    def wanted(self) -> str:
        """What the bounds and sets were chosen for, in words."""
        shares = {"familiar": self.familiar, "precision": self.precision, "coverage": self.coverage}
        said = [f"{name} {share:g}" for name, share in shares.items() if share is not None]
        return "; ".join(said + ([f"sets of coverage {self.conformal.coverage:g}"] if self.conformal else []))

    @property
    def scores(self) -> tuple[str, ...]:
        """Which scores of an image are looked at beside its probabilities, in the order in which rows hold them."""
        bounds = {"energy": self.energy, "distance": self.distance}
        return tuple(name for name, bound in bounds.items() if bound is not None)

    def reason(self, confidence: float, scores: Mapping[str, float]) -> str | None:
        """Returns why an image is not answered, beginning with "unlike" or "unsure"; None where it is.

        Args:
            confidence: the probability of its most probable class.
            scores: energy and distance, where they were computed. One that is no number is beyond every bound.
        """
        for name in reversed(self.scores):
            bound = getattr(self, name)
            if name in scores and not scores[name] <= bound:
                return f"{UNLIKE}: {name} {scores[name]:.4g}, at most {bound:.4g}"
        if self.probability is not None and not confidence >= self.probability:
            return f"unsure: probability {confidence:.4g}, at least {self.probability:.4g}"
        return None


def read_refusal(saved: Any) -> Refusal | None:
    """Returns a refusal from JSON, None where there is none.

    Raises:
        UserError: if it is not what jaxnets writes; what to do is for the caller to add.
    """
    if saved is None:
        return None
    if not isinstance(saved, Mapping):
        raise UserError(f"must have bounds by name as refusal, found {quoted(str(saved))}")
    conformal = saved.get("conformal")
    if conformal is not None:
        found = conformal if isinstance(conformal, Mapping) else {}
        quantile, coverage = (
            _number(found.get(key), f"refusal.conformal.{key}", 1.0) for key in ("quantile", "coverage")
        )
        if quantile is None or coverage is None:
            raise UserError(f"must have quantile and coverage in refusal.conformal, found {quoted(str(conformal))}")
        images = found.get("images")
        if images is not None and (type(images) is not int or images < 1):
            raise UserError(f"must have a number of images in refusal.conformal, found {quoted(str(images))}")
        conformal = Conformal(quantile=quantile, coverage=coverage, images=images)
    return Refusal(
        probability=_number(saved.get("probability"), "refusal.probability", 1.0),
        energy=_number(saved.get("energy"), "refusal.energy"),
        distance=_number(saved.get("distance"), "refusal.distance"),
        **{key: _number(saved.get(key), f"refusal.{key}", 1.0) for key in ("familiar", "precision", "coverage")},
        conformal=conformal,
    )


def read_temperature(saved: Any) -> float | None:
    """Returns a temperature from JSON, None where there is none.

    Raises:
        UserError: if it is no number above 0; what to do is for the caller to add.
    """
    found = _number(saved, "temperature")
    if found is not None and found <= 0:
        raise UserError(f"must have a temperature above 0, found {found}")
    return found


def _number(value: Any, name: str, most: float | None = None) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or value != value or (most is not None and not 0 <= value <= most):
        within = "" if most is None else f" from 0 to {most:g}"
        raise UserError(f"must have a number{within} as {name}, found {quoted(str(value))}")
    return float(value)
