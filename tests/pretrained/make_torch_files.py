"""Makes the files in `data/` with PyTorch: `python make_torch_files.py` (they were made with PyTorch 2.13.0).

The tests import `VALUES` from here, and run without PyTorch.
"""

import argparse
import datetime
import fractions
import signal
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
_RAMP = np.arange(24) - 3.5
VALUES = {  # key: dtype, values; all of them exact in that dtype
    "float32": ("float32", _RAMP.reshape(2, 3, 4)),
    "float64": ("float64", _RAMP[:3] / 3),
    "float16": ("float16", _RAMP.reshape(4, 6)),
    "bfloat16": ("bfloat16", _RAMP.reshape(6, 4)),
    "complex64": ("complex64", _RAMP[:2] * (1 + 2j)),
    "int64": ("int64", np.array([-(2**62), 0, 2**62])),
    "int32": ("int32", np.array([-(2**31), 2**31 - 1])),
    "int16": ("int16", np.array([-(2**15), 2**15 - 1])),
    "int8": ("int8", np.array([-128, 127])),
    "uint8": ("uint8", np.array([0, 255])),
    "uint16": ("uint16", np.array([0, 65535])),
    "bool": ("bool", np.array([True, False, True])),
    "scalar": ("int64", np.array(12345)),
    "empty": ("float32", np.zeros((0, 3))),
    "parameter": ("float32", _RAMP[:6].reshape(2, 3)),
    "transposed": ("float32", _RAMP.reshape(6, 4).T),
    "channels_last": ("float32", _RAMP.reshape(2, 3, 2, 2)),
    "slice": ("float32", _RAMP[5:9]),
    "every_third": ("float32", _RAMP[1::3]),
    "expanded": ("float32", np.broadcast_to(_RAMP[:2], (3, 2))),
    "whole": ("int32", np.arange(6)),
    "tied": ("int32", np.arange(6)),
    "half_of_it": ("int32", np.arange(3, 6)),
}


def main() -> None:
    import torch

    tensors = OrderedDict(
        (key, torch.tensor(values.copy()).to(getattr(torch, dtype))) for key, (dtype, values) in VALUES.items()
    )
    ramp = torch.tensor(_RAMP, dtype=torch.float32)
    tensors["parameter"] = torch.nn.Parameter(tensors["parameter"])
    tensors["transposed"] = ramp.clone().reshape(6, 4).T
    tensors["channels_last"] = tensors["channels_last"].to(memory_format=torch.channels_last)
    tensors["slice"] = ramp[5:9]
    tensors["every_third"] = ramp[1::3]
    tensors["expanded"] = ramp[:2].expand(3, 2)
    tensors["tied"] = tensors["whole"]
    tensors["half_of_it"] = tensors["whole"][3:]
    stream = {"_use_new_zipfile_serialization": False}
    torch.save(tensors, DATA / "zip.pth")
    torch.save(tensors, DATA / "zip_protocol4.pth", pickle_protocol=4)
    torch.save(tensors, DATA / "stream.pth", **stream)
    torch.save(tensors, DATA / "stream_protocol4.pth", pickle_protocol=4, **stream)

    torch.manual_seed(0)
    model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(1, 2, 2), norm=torch.nn.BatchNorm2d(2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    wrapped = OrderedDict((f"module.{key}", value) for key, value in model.state_dict().items())
    checkpoint = {"epoch": 3, "best": 0.5, "optimizer": optimizer.state_dict(), "state_dict": wrapped}
    torch.save(checkpoint, DATA / "checkpoint.pth")
    torch.save(checkpoint, DATA / "checkpoint_stream.pth", **stream)
    np.savez(DATA / "checkpoint.npz", **{key: value.numpy() for key, value in model.state_dict().items()})

    layer = torch.nn.Linear(2, 1)
    raw = OrderedDict(weight=torch.tensor([[1.0, 2.0]]), bias=torch.tensor([3.0]))
    layer.load_state_dict(raw)
    layer(torch.ones(1, 2)).sum().backward()
    adam = torch.optim.AdamW(layer.parameters())
    adam.step()
    raw["bias"].unit = "1"  # an attribute of Python's
    training = {
        "epoch": 3,
        "arch": "linear",
        "state_dict": raw,
        "state_dict_ema": OrderedDict((key, value / 2) for key, value in raw.items()),
        "optimizer": adam.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(adam, [1, 2]).state_dict(),
        "args": argparse.Namespace(lr=0.1, data=Path("data"), device=torch.device("cpu"), dtype=torch.bfloat16),
        "metric": np.float64(71.5),
        "history": np.arange(3),
        "random": (np.random.default_rng(0), torch.get_rng_state()),
        "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "kind": signal.SIGTERM,  # an enum
        "classes": {"cat", "dog"},
        "frozen": frozenset({1, 2}),
        "size": torch.Size([1, 2]),
        "by_pair": {(0, 1): 2, 0.5: 3, 2**70: 4, b"key": 5},
        "by_default": defaultdict(int, {"cat": 1}),
        "ratio": fractions.Fraction(1, 3),
        "complex": 1j,
        "bytes": bytearray(b"ab"),
        "large": -(10**40),
        "float8": torch.ones(2).to(torch.float8_e4m3fn),
        "sparse": torch.eye(2).to_sparse(),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
    }
    torch.save(training, DATA / "training.pth")
    del training["float8"], training["sparse"]  # the old format has no such storages
    torch.save(training, DATA / "training_stream.pth", **stream)

    torch.save(torch.nn.Linear(2, 2), DATA / "module.pth")
    torch.save({"w": torch.eye(2).to_sparse()}, DATA / "sparse.pth")
    torch.save({"w": torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8)}, DATA / "quantized.pth")
    torch.save({"w": torch.ones(2, dtype=torch.complex64).conj()}, DATA / "conjugated.pth")
    torch.save(torch.ones(2), DATA / "tensor.pth")
    torch.serialization.set_crc32_options(False)
    torch.save({"w": ramp}, DATA / "no_checksums.pth")


if __name__ == "__main__":
    main()
