"""Runs with a smaller network: ordinary ones, for whatever is done with a run."""

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.config import with_changes
from jaxnets.errors import UserError
from jaxnets.export.hub_folder import hub_folder
from jaxnets.models import efficientnet, registry, resnet
from jaxnets.models.family import Entry
from jaxnets.recipe.prune import make_pruning
from jaxnets.run.checkpoints import Progress, read_variables, steps
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.serve.limits import Limits
from jaxnets.train.hosts import Hosts
from jaxnets.train.loop import set_up
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.serve.fakes import ask, fake_app
from tests.tiny import FAMILIES, live
from tests.train.runs import arrays_of, rows_of, short

FAMILY = {"resnet": (resnet.FAMILY, "cifar"), "efficientnet": (efficientnet.FAMILY, "efficientnet")}
EVERY = {"checkpoint_every_steps": 2, "eval_every_steps": 4, "ema.decay": 0.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns the function that gives a run of a small network of a family, whose weights are random."""
    folder: Path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name, (family, own) in FAMILY.items():
            like, fields = FAMILIES[own]
            entry = Entry(fields={**family.entries[like].fields, **fields})
            patch.setitem(family.entries, name, entry)
            patch.setitem(registry.MODELS, name, entry)

        def run(name):
            made = RunDirectory(folder / name)
            if not made.is_run():
                config = short(model={"name": name}, steps=2)
                setup = set_up(config, made, Hosts())
                made.create()
                made.write(config, setup.card)
                variables = live(setup.built.model, setup.card.preprocess)
                saver = Checkpointer(made.checkpoints)
                saver.save(TrainState(step=jnp.int32(2), opt_state={}, ema=None, **variables), Progress(step=2))
                saver.close()
            return made.path

        yield run


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("resnet", "channels"),
        ("resnet", "qat"),
        *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in (
                ("resnet", "magnitude"),
                ("efficientnet", "channels"),
                ("efficientnet", "magnitude"),
                ("efficientnet", "qat"),
                ("resnet", "distilled"),
            )
        ),
    ],
)
def test_a_smaller_run_is_an_ordinary_one(runs, tmp_path, name, method):
    """It is made, killed and gone on with; evaluated, loaded, explained, served, and answered by ONNX Runtime."""
    whole, out = runs(name), tmp_path / "smaller"
    config = {"steps": 4, "log_every_steps": 1, **EVERY}
    keep = 0.6 if (name, method) == ("efficientnet", "channels") else 0.5  # so few channels come near to that

    def make(out, **options):
        if method != "distilled":
            return jaxnets.compress(whole, out, method=method, **options)
        student = with_changes(asdict(short(model={"name": name}, distill={"teacher": str(whole)})), config)
        return jaxnets.train(student, out, quiet=True)

    assert make(out, keep=None if method == "qat" else keep, config=config).finished
    run = open_run(out)
    card, before = run.read_model(), open_run(whole).read_model()
    assert method == "distilled" or card.compressed["method"] == method

    killed = tmp_path / "killed"  # after its second step
    shutil.copytree(out, killed)
    for step in steps(killed / "checkpoints"):
        if step > 2:
            shutil.rmtree(killed / "checkpoints" / str(step))
    assert steps(killed / "checkpoints")[-1] == 2
    make(killed)
    first, second = arrays_of(out, 4), arrays_of(killed, 4)
    assert [key for key in first if not np.array_equal(first[key], second[key])] == []
    assert [row for row in rows_of(killed) if row["step"] > 2] == [row for row in rows_of(out) if row["step"] > 2]

    classifier = jaxnets.load(out, engine="jax")
    image = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    expected = classifier.predict(image)
    assert classifier.explain(image).shape == (8, 8)
    assert jaxnets.evaluate(out)["count"] == 360
    pytest.importorskip("onnxruntime")
    close = 0.02 if method == "qat" else 1e-5  # a step apart of 255, where two sums lie on either side of a half
    in_onnx = jaxnets.load(out, engine="onnx")
    np.testing.assert_allclose(in_onnx.predict(image), expected, atol=close)
    app, _ = fake_app("smaller", predictor=in_onnx, limits=Limits(timeout=120))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    answer = ask(app, "POST", "/v1/models/smaller/predict?top=1", content=file.getvalue()).json()["predictions"][0]
    assert answer["top"][0]["probability"] == pytest.approx(expected.max(), abs=close)

    if method == "qat":
        assert card.fields["quantised"]
        assert 0 in {row["step"] for row in rows_of(out)}
        for other, message in (("qat", "train it on with python -m jaxnets.main"), ("channels", "prune the run that")):
            with pytest.raises(UserError, match=f"computes in 8 bits already: {message}"):
                jaxnets.compress(out, tmp_path / "more", method=other)
        made, _ = hub_folder(str(out), "a/b")
        assert "model.safetensors" not in made.files  # timm's networks are not in 8 bits
        made.write(tmp_path / "hub")
        np.testing.assert_array_equal(jaxnets.load(tmp_path / "hub", engine="jax").predict(image), expected)
        # Whatever begins from its weights trains in floating point, and a teacher answers so.
        student = short(model={"name": name, "pretrained": str(out)}, steps=1, distill={"teacher": str(out)})
        assert jaxnets.train(student, tmp_path / "on", quiet=True).finished
        assert "quantised" not in open_run(tmp_path / "on").read_model().fields
        assert not any("ranges" in key for key in arrays_of(tmp_path / "on", 1))
        return
    if method == "distilled":
        return
    if method == "channels":
        share = card.compressed["multiply_adds"]["after"] / card.compressed["multiply_adds"]["before"]
        assert abs(share - keep) < 0.05  # of so small networks a unit is a large share
        assert card.fields["layer_widths"] != before.fields.get("layer_widths")
        assert 0 in {row["step"] for row in rows_of(out)}  # what the cut left, before it was trained on
        return
    config = run.read_config()
    pruning = make_pruning(config.compress, registry.family_of(classifier.model).structure(classifier.model), 4)
    for weights in ("raw", "ema"):
        zeros, total = pruning.zeros(read_variables(run.checkpoints, 4, weights)["params"])
        assert zeros == round(0.5 * total)
    assert [row["train/sparsity"] for row in rows_of(out) if "train/sparsity" in row][-1] == pytest.approx(
        0.5, abs=0.01
    )
    with pytest.raises(UserError, match=r"50\.\d% of its weights left"):
        jaxnets.compress(out, tmp_path / "more", method="magnitude", keep=0.9)
    for other in ("channels", "qat"):
        with pytest.raises(UserError, match="its zeros would fill again"):
            jaxnets.compress(out, tmp_path / "more", method=other)


def test_what_cannot_be_made_smaller_is_refused_and_nothing_is_lost(runs, tmp_path):
    whole = runs("resnet")
    kept = {path: path.stat().st_mtime for path in whole.rglob("*")}

    def refused(match, out=tmp_path / "out", run=whole, **options):
        with pytest.raises(UserError, match=match):
            jaxnets.compress(run, out, **{"method": "channels", **options})

    refused("must be one of magnitude, channels, qat, found 'half'", method="half")
    for keep in (0.0, -0.5, 1.1, float("nan")):
        refused("above 0 and at most 1", keep=keep)
    refused("give another directory", out=whole)
    refused("give another directory", out=whole / "." / "..", run=whole / "..")
    refused("there is no directory", run=tmp_path / "none")
    refused("cannot be reached", keep=0.01)
    refused("bach_size is not a key", config={"bach_size": 1})
    refused("compress.keep is said by", config={"compress.keep": 0.1})
    refused("qat keeps them all", method="qat", keep=0.5)
    for dtype in ("float64", "bfloat16"):
        refused("simulated in float32, and config.dtype is " + dtype, method="qat", config={"dtype": dtype})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused("is not empty", out=tmp_path / "full")
    refused("holds another run", out=shutil.copytree(whole, tmp_path / "other"))
    (tmp_path / "vit").mkdir()
    for name, changed in (("model.json", {"name": "vit_tiny_patch16_224"}), ("config.json", {})):
        content = json.loads((whole / name).read_text()) | changed
        if name == "config.json":
            content["model"]["name"] = "vit_tiny_patch16_224"
        (tmp_path / "vit" / name).write_text(json.dumps(content))
    shutil.copytree(whole / "checkpoints", tmp_path / "vit" / "checkpoints")
    refused("vit_tiny_patch16_224 has attention", run=tmp_path / "vit", method="qat")
    refused("out of ResNet and EfficientNet, and vit_tiny_patch16_224 is neither", run=tmp_path / "vit")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert {path: path.stat().st_mtime for path in whole.rglob("*")} == kept


@pytest.mark.parametrize("method", ["channels", "qat"])
def test_a_run_of_another_network_is_begun_by_its_own_command(tmp_path, method):
    config = short(compress={"method": method})
    with pytest.raises(UserError, match=r"python -m jaxnets\.compress"):
        jaxnets.train(config, tmp_path / "run", quiet=True)
