"""What the one-command fine-tune does beside, or in place of, an ordinary training."""

from dataclasses import dataclass
from typing import Literal

from jaxnets.schema import Count, NonNegative, Positive


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    # head: solved on features that are computed once; last: then the last stages are trained; all: then all layers are;
    # auto: all on an accelerator, on a CPU as much as the time allows; None: an ordinary training.
    method: Literal["auto", "head", "last", "all"] | None = None
    minutes: Positive | None = None  # for all of it; None: on a CPU auto stops at the head; else no limit
    views: Count = 2  # of each training image that the head learns from: itself, its mirror, then random crops
    # logistic: a regression to convergence; ridge: in closed form, for few images of a class; None: by how many.
    solver: Literal["logistic", "ridge"] | None = None
    # Half of it is the penalty on the head's squared weights, beside the mean loss; None: the best on validation.
    regularisation: NonNegative | None = None
    last_stages: Count = 2  # that method=last trains
