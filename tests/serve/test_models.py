"""The models of real runs: newer checkpoints, damaged ones, explanations and embeddings."""

import asyncio
import dataclasses
import io
import logging
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.errors import UserError
from jaxnets.run.checkpoints import Progress, steps
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.serve.app import make_app
from jaxnets.serve.images import Upload
from jaxnets.serve.limits import Limits
from jaxnets.serve.loaded import Loaded
from jaxnets.serve.models import Models
from jaxnets.serve.source import Source
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.serve.fakes import GREY, FakePredictor, ask, client_of, image
from tests.tiny import live
from tests.train.runs import SMALL, short

NAME = "/v1/models/digits"
LIMITS = Limits(timeout=60, latency=10)  # a busy machine is no reason to refuse here


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Few sizes of batches, each of which JAX compiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxnets.serve.batcher._LARGEST", 2)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with two checkpoints, which no training has made."""
    run = RunDirectory(tmp_path_factory.mktemp("run") / "digits")
    run.create()
    fields = {"num_classes": 10, "dtype": "float32"}
    names = tuple(map(str, range(10)))
    run.write(short(), ModelCard(name=SMALL, fields=fields, class_names=names, preprocess=GREY, data={}))
    model = jaxnets.create_model(SMALL, preprocess=GREY, num_classes=10)
    saver = Checkpointer(run.checkpoints)
    for step in (2, 4):
        variables = live(model, GREY, seed=step)
        state = TrainState(jnp.int32(step), variables["params"], variables["batch_stats"], opt_state={}, ema=None)
        saver.save(state, Progress(step=step))
    saver.close()
    return run.path


@pytest.fixture
def growing(finished, tmp_path):
    """A copy of it with the first checkpoint alone, and a function that adds the second."""
    target = tmp_path / "digits"
    shutil.copytree(finished, target)
    newest = str(steps(target / "checkpoints")[-1])
    (target / "checkpoints" / newest).rename(tmp_path / newest)
    return target, lambda: (tmp_path / newest).rename(target / "checkpoints" / newest)


def models_of(workdir, engine="jax", **options):
    def open_(path, checkpoint):
        return jaxnets.load(path, checkpoint, engine=engine)

    source = Source.parse(str(workdir), "newest")
    return Models([source], open_=open_, limits=LIMITS, **options)


@pytest.fixture(scope="module")
def served(finished):
    models = models_of(finished)
    return models.served["digits"].current


def test_onnx_runtime_has_a_worker_on_each_core_and_jax_one(finished, served, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("jaxnets.serve.loaded.cores", lambda: 3)
    found = models_of(finished, engine="onnx").served["digits"].current
    assert (found.predictor.engine.threads, found.batcher.workers) == (1, 3)
    assert served.batcher.workers == 1


def test_a_model_that_is_slow_on_one_core_gets_all_of_them(finished, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("jaxnets.serve.loaded.largest_batch", lambda *arguments: (1, 1e6))
    found = models_of(finished, engine="onnx").served["digits"].current
    assert found.batcher.workers == 1
    assert found.predictor.engine_threads is None


def test_the_service_answers_as_the_library_does(finished):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    expected = jaxnets.load(finished, "newest", engine="jax").predict([image])[0]
    answer = ask(make_app(models_of(finished), LIMITS), "POST", f"{NAME}/predict?top=10", content=file.getvalue())
    found = {row["label"]: row["probability"] for row in answer.json()["predictions"][0]["top"]}
    np.testing.assert_allclose([found[str(digit)] for digit in range(10)], expected, rtol=1e-5)


def test_an_explanation_is_an_image(finished):
    answer = ask(make_app(models_of(finished), LIMITS), "POST", f"{NAME}/explain?label=3", content=image(60, (40, 30)))
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size[0] > 2 * 40


def test_the_method_of_an_explanation_is_named_in_the_query(finished):
    def drawn(query):
        return ask(
            make_app(models_of(finished), LIMITS), "POST", f"{NAME}/explain?label=3{query}", content=image(60, (40, 30))
        ).content

    assert drawn("") == drawn("&method=gradcam")
    assert drawn("&method=gradcam++") == drawn("&method=gradcampp") != drawn("")


@pytest.mark.parametrize("query", ["label=cat", "stage=stage9", "method=gradcat", "method=occlusion"])
def test_an_explanation_of_what_there_is_not(finished, query):
    answer = ask(make_app(models_of(finished), LIMITS), "POST", f"{NAME}/explain?{query}", content=image())
    assert answer.status_code == 422
    assert query.split("=")[1] in answer.json()["error"]["message"]


def test_a_large_image_is_explained_small(served):
    from jaxnets.serve.images import Upload

    upload = Upload(image(60, (3000, 2000)), "an image")
    width, height = served.explain(upload, LIMITS, None, None).size
    assert 2 * 768 < width < 2 * 768 + 50
    assert 512 < height < 512 + 120


def test_an_embedding_is_what_the_head_sees(served):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    embedding = served.predictor.embed_fitted(images)
    head = served.predictor.variables["params"]["head"]
    logits = np.exp(embedding @ head["kernel"] + head["bias"])
    expected = served.predictor.engine.probabilities(images)
    np.testing.assert_allclose(logits / logits.sum(1, keepdims=True), expected, rtol=1e-4, atol=1e-6)


def test_a_newer_checkpoint_takes_over_without_losing_a_request(growing):
    workdir, grow = growing
    models = models_of(workdir)

    async def body():
        answered, enough = [[] for _ in range(4)], asyncio.Event()
        async with client_of(make_app(models, LIMITS)) as client:

            async def ask_for_ever(answers):
                while not enough.is_set():
                    answer = await client.post(f"{NAME}/predict", content=image())
                    answers.append((answer.status_code, answer.json().get("step")))
                    await asyncio.sleep(0.01)

            async def until_answered_by(step):
                async with asyncio.timeout(60):
                    while not any((200, step) in answers for answers in answered):
                        await asyncio.sleep(0.01)

            asking = [asyncio.create_task(ask_for_ever(answers)) for answers in answered]
            await until_answered_by(2)
            grow()
            assert await models.served["digits"].refresh()
            await until_answered_by(4)
            enough.set()
            await asyncio.gather(*asking)
        return answered

    answered = asyncio.run(body())
    assert {status for answers in answered for status, _ in answers} == {200}
    found = [[step for _, step in answers] for answers in answered]
    assert {step for answers in found for step in answers} == set(steps(workdir / "checkpoints"))
    assert found == [sorted(answers) for answers in found]  # whoever has seen the new one never sees the old again


def test_a_damaged_checkpoint_is_refused_and_the_old_model_goes_on(growing, caplog):
    workdir, grow = growing
    models = models_of(workdir)
    grow()
    old, new = steps(workdir / "checkpoints")
    for file in (workdir / "checkpoints" / str(new) / "variables").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:-100])

    async def body():
        async with client_of(make_app(models, LIMITS)) as client:
            with caplog.at_level(logging.WARNING):
                for _ in range(3):
                    assert not await models.served["digits"].refresh()
            return await client.post(f"{NAME}/predict", content=image())

    answer = asyncio.run(body())
    assert answer.json()["step"] == old
    refused = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([record for record in refused if record.name.startswith("jaxnets.serve")]) == 1
    assert f"step {new} is refused, step {old} goes on" in caplog.text


def test_a_checkpoint_that_was_copied_slowly_is_tried_again(growing, monkeypatch):
    monkeypatch.setattr("jaxnets.serve.served._RETRIES", (0.0, 0.0))
    workdir, grow = growing
    models = models_of(workdir)
    newest = workdir / "checkpoints" / "999999"
    newest.mkdir()
    served = models.served["digits"]

    async def body():
        assert not await served.refresh()
        newest.rmdir()
        grow()
        assert await served.refresh()
        await models.close()

    asyncio.run(body())
    assert served.current.predictor.step == steps(workdir / "checkpoints")[-1]


def test_a_model_that_gives_no_finite_probabilities_is_refused():
    predictor = FakePredictor()
    predictor.engine.probabilities = lambda images: np.full((len(images), 10), np.nan, np.float32)
    with pytest.raises(UserError, match="no finite probabilities"):
        Models([Source(name="a", path="a")], open_=lambda path, checkpoint: predictor, limits=LIMITS)


def test_two_models_of_one_name():
    sources = [Source(name="a", path="x"), Source(name="a", path="y")]
    with pytest.raises(UserError, match="given twice"):
        Models(sources, open_=lambda path, checkpoint: FakePredictor(), limits=LIMITS)


def test_sixteen_bits_are_read_as_the_model_s_training_did():
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(content, "PNG")
    predictor = FakePredictor(preprocess=dataclasses.replace(GREY, white_level=4095))
    loaded = Loaded(predictor=predictor, batcher=None)
    assert loaded.prepare(Upload(content.getvalue(), "a.png"), LIMITS).min() == 255
