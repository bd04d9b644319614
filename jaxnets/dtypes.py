"""How wide the numbers are that must be exact."""

from typing import Any

import numpy as np


def widest(dtype: Any) -> np.dtype:
    """Returns the dtype of parameters, statistics, long sums and logits for a compute dtype: float32 or wider."""
    return np.promote_types(dtype, np.float32)
