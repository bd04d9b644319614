"""Everything that a model can do here, with a small network of each family: a new family is one more row of `ROWS`.

The family "own" is made here, of nothing but what `jaxnets.models.family` asks for.
"""

import io
import shutil
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax.typing import Dtype
from PIL import Image

import jaxnets
from jaxnets.classifier import Classifier
from jaxnets.config import Config
from jaxnets.dtypes import widest
from jaxnets.export.check import jax_logits, largest_difference
from jaxnets.export.stablehlo import export_stablehlo, stablehlo_logits
from jaxnets.models import registry
from jaxnets.models.convnext.network import Stage as ConvNeXtStage
from jaxnets.models.family import Entry, Family, Network, Outputs, Structure, numbered_stages
from jaxnets.models.layers import Conv, Head, global_average, relu
from jaxnets.preprocess import Preprocess
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests import tiny
from tests.train.runs import arrays_of, rows_of, short

PIXELS = 16  # that the digits are trained at


class Own(Network):
    """Two convolutions."""

    num_classes: int
    single_output: bool = False
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None

    def setup(self) -> None:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        self.stem = Conv(8, (3, 3), stride=2, bias=True, **dtypes)
        self.stage1_block1 = Conv(8, (3, 3), bias=True, **dtypes)
        self.head = Head(self.num_classes, self.single_output, **dtypes)

    def outputs(self, x, train) -> Outputs:
        stem = relu(self.stem(x))
        stage = self.stage1_block1(stem)
        embedding = global_average(relu(stage), widest(self.dtype))
        return Outputs({"stem": stem, "stage1": stage}, embedding, self.head(embedding))


OWN = Family(
    network=Own,
    entries={"own": Entry(fields={"num_classes": 10})},
    structure=lambda model: Structure(stem=("stem",), stages=numbered_stages([1]), head="head"),
)
_CONVNEXT = (ConvNeXtStage(blocks=1, features=8), ConvNeXtStage(blocks=1, features=8))
ROWS: dict[str, tuple[str, dict[str, Any]]] = {  # a registered model, and fields that make it small
    "ConvNeXt": ("convnext_tiny", {"stages": _CONVNEXT, "layer_scale": 0.5, "stochastic_depth": 0.2}),
    "ViT": (
        "vit_tiny_patch4_32",
        {"width": 16, "blocks": (1, 1), "heads": 2, "layer_scale": 0.5, "stochastic_depth": 0.2},
    ),
    "own": ("own", {}),
    "ResNet": tiny.FAMILIES["cifar"],
    "EfficientNet": tiny.FAMILIES["efficientnet"],
    "Airbench": ("airbench_small", {"widths": (8, 8, 8)}),
    "MLP": ("mlp", {"widths": (16, 8)}),
}
_ELSEWHERE = ("ResNet", "EfficientNet", "Airbench", "MLP")  # what these can do, other tests show with them


def test_each_family_has_a_row():
    found = {registry.find_family(name).network for name, _ in ROWS.values() if name != "own"}
    assert found == {family.network for family in registry.FAMILIES if family is not OWN}


class Trained(NamedTuple):
    name: str
    workdir: Any
    classifier: Classifier


def config_of(name: str, **data) -> Config:
    every = {"eval_every_steps": 2, "checkpoint_every_steps": 1, "log_every_steps": 1}
    return short(model={"name": name}, data={"image_size": PIXELS, **data}, steps=2, **every)


@pytest.fixture(scope="module")
def registered():
    """The small networks as models that have a name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "FAMILIES", (*registry.FAMILIES, OWN))
        patch.setitem(registry.MODELS, "own", OWN.entries["own"])
        for row, (name, fields) in ROWS.items():
            own = Entry(fields={**registry.find_model(name).fields, **fields})
            patch.setitem(registry.find_family(name).entries, row, own)
            patch.setitem(registry.MODELS, row, own)
        yield


@pytest.fixture(
    scope="module", params=[pytest.param(row, marks=[pytest.mark.slow] * (row in _ELSEWHERE)) for row in ROWS]
)
def trained(request, registered, tmp_path_factory, eight_devices):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    train(config_of(request.param), workdir, Display(), eight_devices)
    return Trained(request.param, workdir, jaxnets.load(workdir, "newest", engine="jax"))


@pytest.fixture(scope="module")
def images(trained):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (6, PIXELS, PIXELS, 1), np.uint8)


def test_it_trains_on_eight_devices_and_goes_on_where_it_stopped(trained, tmp_path, eight_devices):
    losses = [row["train/loss"] for row in rows_of(trained.workdir) if "train/loss" in row]
    assert losses
    assert np.isfinite(losses).all()
    stopped = tmp_path / "stopped"
    shutil.copytree(trained.workdir, stopped)
    shutil.rmtree(stopped / "checkpoints" / "2")
    train(config_of(trained.name), stopped, Display(), eight_devices)
    whole, parts, before = arrays_of(trained.workdir, 2), arrays_of(stopped, 2), arrays_of(stopped, 1)
    assert all(np.array_equal(whole[key], parts[key]) for key in whole)
    moved = [not np.array_equal(before[key], parts[key]) for key in before if "raw" in key and "kernel" in key]
    assert sum(moved) >= len(moved) - 1  # Airbench's whitening never trains


def test_it_becomes_an_onnx_file_in_float32_and_in_int8(trained, images):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from jaxnets.export.int8 import calibrate, quantisable, quantise
    from jaxnets.export.onnx_export import export_onnx, onnx_logits

    content = export_onnx(trained.classifier, normalised_inside=True)
    expected = jax_logits(trained.classifier)(images)
    assert largest_difference(expected, onnx_logits(content, trained.classifier)(images)) < 1e-4
    prepared = quantisable(content)
    small = quantise(prepared, calibrate(prepared, trained.classifier, images))
    kinds = [node.op_type for node in onnx.load_from_string(small).graph.node]
    assert "DequantizeLinear" in kinds
    assert largest_difference(expected, onnx_logits(small, trained.classifier)(images)) < 0.2


def test_it_becomes_a_stablehlo_file(trained, images):
    logits = stablehlo_logits(export_stablehlo(trained.classifier))
    assert largest_difference(jax_logits(trained.classifier)(images), logits(images)) < 1e-4


def test_grad_cam_shows_where_it_looks(trained, images):
    if registry.find_family(trained.name).structure(trained.classifier.model).one_size:
        pytest.skip("its stages have no rows and columns")
    stage = None if trained.classifier.explainer.has_places else "stage1"  # Airbench's last one has a single place
    found = trained.classifier.explain_batch(list(images[..., 0]), method="gradcam", stage=stage)
    heats = [explanation.heat for explanation in found]
    assert all(heat.shape == (PIXELS, PIXELS) and np.isfinite(heat).all() for heat in heats)
    assert max(heat.max() for heat in heats) == pytest.approx(1)
    assert max(np.ptp(heat) for heat in heats) > 0


def test_it_is_served(trained, images, monkeypatch):
    monkeypatch.setattr("jaxnets.serve.batcher._LARGEST", 1)  # few sizes of batches, each of which JAX compiles
    from jaxnets.serve.app import make_app
    from jaxnets.serve.limits import Limits
    from jaxnets.serve.models import Models
    from jaxnets.serve.source import Source
    from tests.serve.fakes import ask

    limits = Limits(timeout=60, latency=10)
    sources = [Source(name="digits", path=str(trained.workdir))]
    models = Models(sources, open_=lambda path, checkpoint: trained.classifier, limits=limits)
    file = io.BytesIO()
    Image.fromarray(images[0, ..., 0]).save(file, "PNG")
    answer = ask(make_app(models, limits), "POST", "/v1/models/digits/predict?top=10", content=file.getvalue())
    found = {row["label"]: row["probability"] for row in answer.json()["predictions"][0]["top"]}
    expected = trained.classifier.predict(images[0])[0]
    np.testing.assert_allclose([found[str(digit)] for digit in range(10)], expected, rtol=1e-4)


def test_its_training_is_planned(trained):
    from jaxnets.plan.planner import Planner
    from tests.plan.test_plan import STAND_IN, topology

    config = config_of(trained.name, **{**STAND_IN, "image_size": PIXELS, "num_classes": 10})
    step = Planner(config, topology(), lambda text: None).train(16)
    assert step.fits
    assert step.flops_per_image > 0
