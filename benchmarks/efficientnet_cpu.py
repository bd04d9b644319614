"""Times EfficientNet-Lite0 on a CPU: jaxnets, the same network in plain convolutions, ONNX Runtime, and PyTorch.

python benchmarks/efficientnet_cpu.py [--batch 32 --repeats 15 --torch PYTHON]

Inference of 1 image and of a batch, and training on a batch (forward and backward pass, and the parameters moved), a
few steps at a time, which JAX runs as a loop in one program; float32, 224×224, all in one run, by turns. jaxnets infers
in blocks of images (jaxnets.models.cpu.inference), as its engine does. ONNX Runtime and PyTorch run in a process of
their own, from the interpreter that --torch names (one that has torch, timm, onnxscript and onnxruntime installed; the
benchmark goes on without them otherwise). PyTorch runs in whichever memory layout is faster there. "plain" is what
Flax's Linen makes of the network, convolution by convolution: lax.conv_general_dilated. It trains step by step, since
XLA's CPU backend runs it far slower in a loop.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

SIZE = 224
STEPS = 3  # of training in each measurement
RATE = 1e-3  # of gradient descent
PAUSE = 0.05  # seconds before each measurement, in which the threads of the one before stop spinning


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--plain-repeats", type=int, default=1, help="of the plain form, which takes minutes")
    parser.add_argument("--torch", default=sys.executable, help="a Python interpreter that has torch")
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_torch:
        serve_torch(options)
        return
    from machine import machine  # not where PyTorch runs, which may have no jaxnets

    print(f"{machine()}; {options.repeats} repeats (plain: {options.plain_repeats})")
    others = TorchProcess(options)
    print(", ".join([jax_versions(), *others.versions]))
    runners = jaxnets_runners(options)
    for task in tasks(options):
        compare(task, runners[task] | others.runners(task), options)


def tasks(options) -> dict[str, tuple[str, int, int]]:
    """What is timed: kind, images at a time, and how many times in one measurement."""
    return {
        "inference, batch 1": ("infer", 1, 10),
        f"inference, batch {options.batch}": ("infer", options.batch, 1),
        f"training, batch {options.batch}": ("train", options.batch, STEPS),
    }


def compare(task, runners, options) -> None:
    _, batch, calls = tasks(options)[task]
    times: dict[str, list[float]] = {name: [] for name in runners}
    for repeat in range(options.repeats):
        for name, run in runners.items():
            if name != "plain" or repeat < options.plain_repeats:
                time.sleep(PAUSE)
                times[name].append(run(calls) / calls)
    print(f"\n{task}: milliseconds")
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"  {name:12} median {1e3 * median:8.1f}  min {1e3 * min(found):8.1f}  max {1e3 * max(found):8.1f}"
            f"  {batch / median:7.1f} images/s  {median / statistics.median(times['jaxnets']):6.2f} × jaxnets",
            flush=True,
        )


def jax_versions() -> str:
    import flax
    import jax

    return f"jax {jax.__version__}, flax {flax.__version__}"


def jaxnets_runners(options):
    from unittest import mock

    import jax
    import numpy as np
    import optax
    from jax import lax

    import jaxnets
    from jaxnets.models.cpu.inference import in_blocks

    model = jaxnets.create_model("efficientnet_lite0", dropout=0.0, stochastic_depth=0.0)
    rng = np.random.default_rng(0)
    images = jax.device_put(rng.normal(size=(options.batch, SIZE, SIZE, 3)).astype(np.float32))
    labels = jax.device_put(np.arange(options.batch) % 1000)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def infer_at_once(variables, x):
        return model.apply(variables, x)

    def infer(variables, x):
        return in_blocks(lambda part: model.apply(variables, part), x)

    def train(variables, x):
        def loss_of(params):
            logits, changed = model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        gradient, changed = jax.grad(loss_of, has_aux=True)(variables["params"])
        return changed | {"params": jax.tree.map(lambda p, g: p - RATE * g, variables["params"], gradient)}

    def train_steps(variables, x):
        return lax.fori_loop(0, STEPS, lambda _, variables: train(variables, x), variables)

    def plain(x, kernel, *, stride, padding, groups=1):
        order = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=order, feature_group_count=groups)

    def runner(function, x, steps):
        # A function of its own, because JAX keeps what it traced by the function: the plain form must be traced again.
        compiled = jax.jit(lambda variables, x: function(variables, x)).lower(variables, x).compile()

        def run(calls: int) -> float:
            start = time.perf_counter()
            for _ in range(calls // steps):
                jax.block_until_ready(compiled(variables, x))
            return time.perf_counter() - start

        run(steps)
        return run

    runners = {}
    for task, (kind, batch, _) in tasks(options).items():
        function, best, steps = {"infer": (infer_at_once, infer, 1), "train": (train, train_steps, STEPS)}[kind]
        runners[task] = {"jaxnets": runner(best, images[:batch], steps)}
        if options.plain_repeats:
            with mock.patch("jaxnets.models.layers.conv2d", plain):
                runners[task]["plain"] = runner(function, images[:batch], 1)
    return runners


class TorchProcess:
    """The other process; each line that it is sent names what to time, and its answer is the time in seconds."""

    def __init__(self, options) -> None:
        self._process = subprocess.Popen(
            [options.torch, __file__, "--serve-torch", f"--batch={options.batch}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        ready, _, versions = self._process.stdout.readline().strip().partition(" ")
        self._works = ready == "ready"
        self.versions = [versions] if self._works else [f"{options.torch} cannot run PyTorch and ONNX Runtime"]

    def runners(self, task: str):
        def ask(name: str, calls: int) -> float:
            self._process.stdin.write(f"{name}; {task}; {calls}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())

        names = ["PyTorch"] if task.startswith("training") else ["ONNX Runtime", "PyTorch"]
        return {name: lambda calls, name=name: ask(name, calls) for name in names if self._works}


def serve_torch(options) -> None:
    import contextlib

    import onnxruntime
    import timm
    import torch
    from torch.nn.functional import cross_entropy

    answers, model = sys.stdout, timm.create_model("tf_efficientnet_lite0")
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    runners = {}
    for task, (kind, batch, _) in tasks(options).items():
        x, label = torch.randn(batch, 3, SIZE, SIZE), torch.arange(batch) % 1000

        def infer(x=x):
            with torch.inference_mode():
                model.eval()(x)

        def train(x=x, label=label):
            optimizer.zero_grad()
            cross_entropy(model.train()(x), label).backward()
            optimizer.step()

        if kind == "infer":
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
                torch.onnx.export(model.eval(), (x,), f"{folder}/model.onnx", dynamo=True)
                session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: x.numpy()}
            runners["ONNX Runtime", task] = lambda session=session, feed=feed: session.run(None, feed)
        runners["PyTorch", task] = {"infer": infer, "train": train}[kind]

    def timed(run, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return time.perf_counter() - start

    layouts = {}
    for task, (_, batch, _) in tasks(options).items():
        function = runners["PyTorch", task]
        by_time = []
        for layout in (torch.contiguous_format, torch.channels_last):
            model.to(memory_format=layout)
            x = torch.randn(batch, 3, SIZE, SIZE).to(memory_format=layout)
            run = lambda function=function, x=x: function(x)  # noqa: E731
            timed(run, 1)
            by_time.append((timed(run, 2), str(layout), layout, run))
        _, _, layouts[task], runners["PyTorch", task] = min(by_time)

    versions = f"torch {torch.__version__}, timm {timm.__version__}, onnxruntime {onnxruntime.__version__}"
    print("ready", versions, file=answers, flush=True)
    for line in sys.stdin:
        name, task, calls = line.strip().split("; ")
        model.to(memory_format=layouts[task])
        print(timed(runners[name, task], int(calls)), file=answers, flush=True)


if __name__ == "__main__":
    main()
