"""Makes data/peers.npz: where other libraries' optimizers and schedules lead in 60 steps on random tensors.

python make_peers.py AIRBENCH MUON, with torch and timm installed, and the paths of `airbench94_muon.py` (of
KellerJordan/cifar10-airbench, commit f1c599c) and `muon.py` (of KellerJordan/Muon, 857d1ad), whose classes are run as
they are, but in float64 throughout. The file was made with PyTorch 2.13.0 and timm 1.0.31.

The tests import the problem and the cases from here, and run without PyTorch.
"""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data" / "peers.npz"
STEPS = 60
SHAPES: dict[tuple[str, ...], tuple[int, ...]] = {
    ("stem", "kernel"): (3, 3, 3, 4),
    ("block", "conv", "kernel"): (3, 2, 4, 5),
    ("block", "norm", "scale"): (6,),
    ("block", "norm", "bias"): (6,),
    ("gate", "kernel"): (5, 8),
    ("gate", "bias"): (8,),
    ("head", "kernel"): (6, 3),
    ("head", "bias"): (3,),
}
RATES = {"stem": 0.25, "block": 0.5, "gate": 0.5, "head": 2.0}  # what each layer's rate is multiplied by
_SIZES = [int(np.prod(shape)) for shape in SHAPES.values()]
_NOISE = np.random.RandomState(1).randn(STEPS, sum(_SIZES))


def start() -> dict[tuple[str, ...], np.ndarray]:
    """Returns the parameters before the first step, float64."""
    random = np.random.RandomState(0)
    return {path: random.randn(*shape) for path, shape in SHAPES.items()}


def gradient(step: int, path: tuple[str, ...], w: Any) -> Any:
    """Returns the gradient of a parameter: that of a quadratic, and noise that is louder at some steps."""
    number = list(SHAPES).index(path)
    noise = _NOISE[step, sum(_SIZES[:number]) : sum(_SIZES[: number + 1])].reshape(SHAPES[path])
    return 0.1 * w + (0.05 + 0.3 * (step % 5)) * noise.astype(w.dtype)


def share(step: int) -> float:
    """Returns what is left of the rate: it drops at times, as where the rate is within a momentum that matters."""
    return 0.8 ** (step // 7)


# The keys of config.optimizer for each case; all have the rates of the layers above beside the rate that falls.
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.02, "decay_on": "all"},
    "sgd_decoupled": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.02, "decay_form": "decoupled"},
    "sgd_by_schedule": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.001, "decay_by": "schedule"},
    "adamw": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    "adam_coupled": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "decay_form": "coupled"},
    "rmsprop": {"name": "rmsprop", "learning_rate": 0.01, "weight_decay": 0.01, "decay_on": "no_norms"},
    "rmsprop_decoupled": {"name": "rmsprop", "learning_rate": 0.01, "weight_decay": 0.1, "decay_form": "decoupled"},
    "lamb": {"name": "lamb", "learning_rate": 0.01, "weight_decay": 0.02},
    "lamb_always": {"name": "lamb", "learning_rate": 0.01, "weight_decay": 0.02, "lamb": {"always_adapt": True}},
    "lars": {"name": "lars", "learning_rate": 5.0, "weight_decay": 0.02},
    "lars_nesterov": {"name": "lars", "learning_rate": 0.5, "weight_decay": 0.02, "lars": {
        "nesterov": True, "trust": 0.01, "always_adapt": True}},
    "lion": {"name": "lion", "learning_rate": 0.003, "weight_decay": 0.3},
    "clipped": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.02, "adaptive_clip": 0.3},
    "clipped_by_norm": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.02, "clip_norm": 2.0},
    "muon_airbench": {"name": "muon", "learning_rate": 0.05, "weight_decay": 0.001, "decay_on": "all",
        "decay_by": "schedule", "momentum": 0.85,
        "muon": {"form": "airbench", "fallback": "sgd", "fallback_rate": 0.25}},
    "muon_keller_jordan": {"name": "muon", "learning_rate": 0.02, "weight_decay": 0.1, "beta2": 0.95,
        "muon": {"fallback_rate": 0.15}},
    "sgd_one_cycle": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.02},
    "adamw_one_cycle": {"name": "adamw", "learning_rate": 0.02, "weight_decay": 0.1},
}  # fmt: skip


def main(airbench: Path, muon: Path) -> None:
    import torch

    found = {name: _run(name, keys, airbench, muon) for name, keys in CASES.items()}
    found |= _schedules()
    DATA.parent.mkdir(exist_ok=True)
    np.savez_compressed(DATA, **{name: np.float32(values) for name, values in found.items()})
    print(f"{DATA}: {DATA.stat().st_size} bytes, PyTorch {torch.__version__}")


def _run(name: str, keys: dict[str, Any], airbench: Path, muon: Path) -> np.ndarray:
    import timm
    import torch
    from timm.utils.agc import adaptive_clip_grad

    params = {
        path: torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(np.moveaxis(w, (-1, -2), (0, 1)))))
        if w.ndim > 1
        else torch.nn.Parameter(torch.from_numpy(w))
        for path, w in start().items()
    }
    optimizers = _optimizers(name, keys, params, airbench, muon)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["initial_lr"] = group["lr"]
    cycle = None
    if name.endswith("_one_cycle"):
        peaks = [group["lr"] for group in groups]
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizers[0], peaks, total_steps=STEPS)
    for step in range(STEPS):
        if cycle is None:
            for group in groups:
                group["lr"] = group["initial_lr"] * share(step)
        for path, p in params.items():
            p.grad = _to_torch(gradient(step, path, _from_torch(p)))
        if name == "clipped":
            adaptive_clip_grad([p for path, p in params.items() if path[0] != "head"], 0.3)
        if name == "clipped_by_norm":
            torch.nn.utils.clip_grad_norm_(params.values(), 2.0)
        for optimizer in optimizers:
            optimizer.step()
        if cycle is not None and step < STEPS - 1:
            cycle.step()
    assert timm.__version__
    return np.concatenate([_from_torch(p).ravel() for p in params.values()])


def _to_torch(w: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(w, (-1, -2), (0, 1)) if w.ndim > 1 else w))


def _from_torch(p: Any) -> np.ndarray:
    w = p.detach().numpy().copy()
    return np.moveaxis(w, (0, 1), (-1, -2)) if w.ndim > 1 else w


def _optimizers(name: str, keys: dict[str, Any], params: Any, airbench: Path, muon: Path) -> list[Any]:
    """Returns the peer's optimizers, with a group for each parameter."""
    import timm.optim
    import torch

    rate, decay = keys["learning_rate"], keys["weight_decay"]
    on = keys.get("decay_on", "kernels")

    def group(path: tuple[str, ...], factor: float = 1.0) -> dict[str, Any]:
        own = rate * factor * RATES[path[0]]
        decays = path[-1] == "kernel" if on == "kernels" else on == "all" or path[-2] != "norm"
        weight = decay / own if keys.get("decay_by") == "schedule" else decay
        return {"params": [params[path]], "lr": own, "weight_decay": weight if decays else 0.0}

    if name.startswith("muon"):
        matrices = [path for path in params if path[-1] == "kernel" and path[0] not in ("stem", "head")]
        fallback = keys["muon"]["fallback_rate"]
        rest = [group(path, fallback) for path in params if path not in matrices]
        own = [group(path) for path in matrices]
        if name == "muon_airbench":
            for each in own:
                del each["weight_decay"]
            peer = _class_of(airbench, "Muon")(own, momentum=0.6, nesterov=True)
            return [peer, torch.optim.SGD(rest, momentum=0.85, nesterov=True)]
        peer = _class_of(muon, "SingleDeviceMuon")(own, momentum=0.95)
        return [peer, torch.optim.AdamW(rest, betas=(0.9, 0.95))]
    groups = [group(path) for path in params]
    peers: dict[str, Callable[[], Any]] = {
        "sgd_decoupled": lambda: timm.optim.SGDW(groups, lr=rate, momentum=0.9, nesterov=True),
        "adamw": lambda: torch.optim.AdamW(groups),
        "adam_coupled": lambda: torch.optim.Adam(groups),
        "adamw_one_cycle": lambda: torch.optim.AdamW(groups),
        "rmsprop": lambda: timm.optim.RMSpropTF(groups, alpha=0.9, eps=1e-3, momentum=0.9),
        "rmsprop_decoupled": lambda: timm.optim.RMSpropTF(
            groups, alpha=0.9, eps=1e-3, momentum=0.9, decoupled_decay=True
        ),
        "lamb": lambda: timm.optim.Lamb(groups),
        "lamb_always": lambda: timm.optim.Lamb(groups, always_adapt=True),
        "lars": lambda: timm.optim.Lars(groups, momentum=0.9),
        "lars_nesterov": lambda: timm.optim.Lars(
            groups, momentum=0.9, nesterov=True, trust_coeff=0.01, always_adapt=True
        ),
        "lion": lambda: timm.optim.Lion(groups),
    }
    return [peers.get(name, lambda: torch.optim.SGD(groups, momentum=0.9, nesterov=True))()]


def _class_of(path: Path, name: str) -> Any:
    """Returns a class of a script, with the script's own functions, in float64 where they compute in bfloat16."""
    import torch

    tree = ast.parse(path.read_text().replace(".bfloat16()", ".double()").replace("@torch.compile", ""))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    space: dict[str, Any] = {"torch": torch, "nn": torch.nn}
    exec(compile(tree, str(path), "exec"), space)
    return space[name]


def _schedules() -> dict[str, np.ndarray]:
    """Returns rates of torch's and timm's schedulers, of a peak of 0.4, a number for each step or epoch."""
    import torch
    from timm.scheduler import CosineLRScheduler, StepLRScheduler

    def optimizer(**more: float) -> Any:
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4, **more)

    def followed(scheduler: Any, count: int) -> np.ndarray:
        rates = []
        for at in range(count):
            rates.append([scheduler.optimizer.param_groups[0][key] for key in ("lr", "momentum")])
            scheduler.optimizer.step()
            if isinstance(scheduler, CosineLRScheduler | StepLRScheduler):
                scheduler.step(at + 1)
            elif at < count - 1:
                scheduler.step()
        return np.array(rates).T

    schedulers = torch.optim.lr_scheduler
    found = {}
    for form in ("cos", "linear"):
        for rise in (0.3, 0.1):
            one = optimizer(momentum=0.9)
            cycle = schedulers.OneCycleLR(one, 0.4, total_steps=80, pct_start=rise, anneal_strategy=form)
            found[f"one_cycle_{form}_{rise}"] = followed(cycle, 80)
    found["exponential"] = followed(schedulers.ExponentialLR(optimizer(), 0.97), 60)[0]
    for prefix in (False, True):
        length = 55 if prefix else 60
        cosine = CosineLRScheduler(
            optimizer(), t_initial=length, lr_min=0.004, warmup_t=5, warmup_lr_init=0.002, warmup_prefix=prefix
        )
        found[f"timm_cosine_{'after' if prefix else 'from_start'}"] = followed(cosine, 60)[0]
    steps = StepLRScheduler(
        optimizer(), decay_t=2.4, decay_rate=0.97, warmup_t=5, warmup_lr_init=0.002, warmup_prefix=False
    )
    found["timm_step"] = followed(steps, 60)[0]
    one = optimizer()
    warm = schedulers.LinearLR(one, start_factor=0.01, total_iters=5)
    fall = schedulers.CosineAnnealingLR(one, T_max=55, eta_min=0.0)
    found["torchvision_cosine"] = followed(schedulers.SequentialLR(one, [warm, fall], milestones=[5]), 60)[0]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
