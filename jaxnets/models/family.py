"""What a family of models says of itself."""

from typing import Any

Variables = dict[str, Any]  # {"params": …, "batch_stats": …}
