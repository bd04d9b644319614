"""What an earlier version wrote, in today's form."""

from collections.abc import Mapping
from typing import Any

FORMAT = 3  # of config.json and model.json


def upgrade_config(saved: Mapping[str, Any], format: int) -> dict[str, Any]:
    """Returns the content of a config.json of any format that there was, with today's keys.

    Format 1 had label_smoothing, data.crop_padding and data.flip in place of the groups `loss` and `augment`. Until the
    group `ema` there was ema_decay, with TensorFlow's warm-up. Format 3 is that of a model.json that may hold a
    temperature and bounds: what reads format 2 would answer without them and not know it.
    """
    config = dict(saved)
    if "ema_decay" in config:
        config["ema"] = {"decay": config.pop("ema_decay"), "warmup": "tensorflow"}
    if format == 1:
        data = dict(config.get("data", {}))
        config["loss"] = {"label_smoothing": config.pop("label_smoothing", 0.0)}
        config["augment"] = {
            "pad_and_crop": {"padding": data.pop("crop_padding", 0)},
            "flip": {"horizontal": 0.5 if data.pop("flip", False) else 0.0},
        }
        config["data"] = data
    return config
