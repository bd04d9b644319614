"""Times an exported network in ONNX Runtime, EfficientNet-Lite0 by default, beside PyTorch's own export of it.

python benchmarks/onnx_cpu.py [--model convnext_tiny --batch 32 --repeats 15 --torch PYTHON --calibration FOLDER]

All sessions live in one process and take turns, so that only the graphs differ: jaxnets' float32 export, PyTorch's
(torch.onnx.export of timm's network, made by the interpreter that --torch names, which needs torch, timm and
onnxscript), and jaxnets' int8 export. Weights are random but for Lite0's. int8 is calibrated on --calibration, by
default on scikit-learn's two photographs, which is enough to time it and not to judge it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import onnxruntime
from machine import machine

import jaxnets
from jaxnets.classifier import Classifier
from jaxnets.cores import cores
from jaxnets.data.decode import decode
from jaxnets.data.sources.folder import image_files
from jaxnets.export.check import sample_images
from jaxnets.export.int8 import calibrate, quantisable, quantise
from jaxnets.export.onnx_export import export_onnx
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.registry import find_model

PRETRAINED = "efficientnet_lite0"
TIMM = {PRETRAINED: "tf_efficientnet_lite0"}  # where that is another name
PAUSE = 0.05  # seconds before each measurement, in which the threads of the one before stop spinning
CALLS = {1: 10}  # in one measurement; otherwise one

TORCH_EXPORT = """
import sys, timm, torch
model = timm.create_model(sys.argv[2]).eval()
batch = torch.export.Dim("batch")
x = torch.randn(2, 3, 224, 224)
torch.onnx.export(model, (x,), sys.argv[1], dynamo=True, dynamic_shapes=({0: batch},))
print(torch.__version__, timm.__version__, file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=PRETRAINED, help="one of jaxnets.list_models(), for 224×224 pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--torch", help="a Python interpreter that has torch, timm and onnxscript")
    parser.add_argument("--calibration", type=Path, help="a folder of images")
    options = parser.parse_args()
    print(f"{machine()}; onnxruntime {onnxruntime.__version__}; {options.model}; {options.repeats} repeats")

    classifier = classifier_of(options.model)
    content = export_onnx(classifier, normalised_inside=False)
    graphs: dict[str, bytes | str] = {"jaxnets": content}
    images = sample_images(classifier)
    if options.calibration:
        files = image_files([options.calibration])[:256]
        images = np.stack([classifier.preprocess.fit(decode(file, str(file))) for file in files])
    prepared = quantisable(content)
    graphs["jaxnets int8"] = quantise(prepared, calibrate(prepared, classifier, images))
    with tempfile.TemporaryDirectory() as folder:
        if options.torch:
            path = f"{folder}/torch.onnx"
            command = [options.torch, "-c", TORCH_EXPORT, path, TIMM.get(options.model, options.model)]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                sys.exit(f"{options.torch} cannot export:\n{made.stderr[-2000:]}")
            graphs["PyTorch"] = path
            print(f"torch and timm {made.stderr.strip().splitlines()[-1]}")
        sessions = {name: open_session(graph) for name, graph in graphs.items()}
    for batch in (1, options.batch):
        compare(sessions, batch, options.repeats)


def classifier_of(name: str) -> Classifier:
    if name == PRETRAINED:
        return jaxnets.load(name, engine="jax")
    model, preprocess = jaxnets.create_model(name), find_model(name).preprocess
    assert preprocess is not None
    image = np.zeros((1, preprocess.height, preprocess.width, 3), np.float32)
    with plain_convolutions():
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
        return random.normal(0, fan_in**-0.5 if path[-1].key == "kernel" else 0.1, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    labels = tuple(map(str, range(model.num_classes)))
    return Classifier(name=name, model=model, variables=variables, preprocess=preprocess, labels=labels, step=None)


def open_session(graph: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def compare(sessions, batch: int, repeats: int) -> None:
    x = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)
    calls = CALLS.get(batch, 1)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for repeat in range(repeats + 1):
        for name, session in sessions.items():
            time.sleep(PAUSE)
            feed = {session.get_inputs()[0].name: x}
            session.run(None, feed)  # wakes the threads
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, feed)
            if repeat:  # the first round warms up
                times[name].append((time.perf_counter() - start) / calls)
    print(f"\nbatch {batch}: milliseconds")
    base = statistics.median(times["jaxnets"])
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"  {name:13} median {1e3 * median:7.2f}  min {1e3 * min(found):7.2f}  max {1e3 * max(found):7.2f}"
            f"  {median / base:5.2f} × jaxnets float32"
        )


if __name__ == "__main__":
    main()
