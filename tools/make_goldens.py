"""Writes tests/pretrained/goldens.json: the original implementations' logits, for weights that NumPy draws by name.

    python -m tools.make_goldens
    python -m tools.make_goldens --only convnext  # those whose label contains it; the others in the file stay, as do
                                                  # the versions above them, which are of cases that name none

The repository's tests draw the same weights, open them with `jaxnets.load_pretrained` and compare, without torch. What
is stored are logits and a checksum of the original's keys and shapes. `tools/peers.py` says which packages this needs.
"""

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import torch

from tests.pretrained.drawn import checksum, draw, draw_images
from tools.peers import PEERS, load_state_dict, state_dict, versions

GOLDENS = Path(__file__).parent.parent / "tests" / "pretrained" / "goldens.json"
CLASSES = 16
ODD_SIZE = (65, 57)
EVEN_SIZE = (64, 64)  # where the padding does not follow the input: even down to the last stage, as at 224
FIXED_WHEN_BUILT = ("efficientnet-pytorch", "efficientnet-lite-pytorch")

CASES = {  # each layout with each of its kinds of block, and the gain that keeps its signals alive
    "torchvision/resnet18": 0.6,
    "torchvision/resnext50_32x4d": 0.6,
    "timm/resnet50d": 0.6,
    "timm/seresnet50": 0.6,
    "timm/resnetv2_50": 0.6,
    "transformers/resnet-18": 0.6,
    "transformers/resnet-50": 0.6,
    "timm/efficientnet_b0": 1.0,
    "timm/vit_tiny_patch16_224": 6.0,
    "timm/deit3_small_patch16_224": 6.0,
    "torchvision/vit-tiny": 6.0,
    "transformers/vit-tiny": 6.0,
    "timm/tf_efficientnet_lite2": 1.2,
    "timm/tf_efficientnetv2_b0": 0.75,
    "torchvision/efficientnet_b0": 1.0,
    "torchvision/efficientnet_v2_s": 0.6,
    "transformers/efficientnet-b0": 1.0,
    "efficientnet-pytorch/efficientnet-b0": 1.0,
    "efficientnet-lite-pytorch/efficientnet-lite0": 1.2,
    "timm/convnext_atto": 3.0,
    "timm/convnextv2_atto": 3.0,
    "torchvision/convnext_tiny": 3.0,
    "transformers/convnext-atto": 3.0,
    "transformers/convnextv2-atto": 3.0,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--only", nargs="*", default=[""], metavar="TEXT", help="cases with one of these in the label"
    )
    options = arguments.parse_args()
    peers, known = {peer.label: peer for peer in PEERS}, versions()
    kept = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {"versions": {}, "cases": []}
    cases: list[dict[str, Any]] = [case for case in kept["cases"] if case["original"] in CASES]
    for label, gain in CASES.items():
        if not any(text in label for text in options.only):
            continue
        cases = [case for case in cases if case["original"] != label]
        peer = peers[label]
        height, width = ODD_SIZE if peer.any_size else EVEN_SIZE
        size = height // peer.patch * peer.patch, width // peer.patch * peer.patch
        built_for_a_size = peer.library in FIXED_WHEN_BUILT or (peer.patch > 1 and not peer.any_size)
        fixed = {"size": size[0]} if built_for_a_size else {}
        original = peer.build(classes=CLASSES, **fixed).eval()
        shapes = {key: tuple(tensor.shape) for key, tensor in state_dict(original).items()}
        load_state_dict(original, {key: torch.from_numpy(draw(key, shape, gain)) for key, shape in shapes.items()})
        with torch.no_grad():
            logits = original(torch.from_numpy(draw_images(*size)).permute(0, 3, 1, 2)).numpy()
        cases.append(
            {
                "original": label,
                "model": peer.ours,
                **({"fields": {"grid": [side // peer.patch for side in size]}} if fixed and peer.patch > 1 else {}),
                "size": size,
                "gain": gain,
                "versions": {name: known[name] for name in ("torch", peer.library)},
                "keys": checksum(shapes.items()),
                "logits": [[round(float(logit), 7) for logit in row] for row in logits],
            }
        )
        print(f"{label:<50}{abs(logits).max():>10.2f}{abs(logits[0] - logits[1]).max() / abs(logits).max():>8.2f}")
    cases.sort(key=lambda case: list(CASES).index(case["original"]))
    found = {"date": datetime.date.today().isoformat(), "versions": known | kept["versions"], "cases": cases}
    GOLDENS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
