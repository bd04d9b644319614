"""What a request for similar images is answered with."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("faiss")

from jaxnets.errors import UserError
from jaxnets.search.build import build_index
from jaxnets.search.index import open_index
from jaxnets.serve.limits import Limits
from jaxnets.serve.models import Models
from jaxnets.serve.searched import Searched, open_searched
from jaxnets.serve.source import Source
from tests.serve.fakes import FakePredictor, ask, fake_app
from tests.tiny import classifier

PATH = "/v1/models/fake/search"
PATIENT = Limits(timeout=120)  # where the machine is busy, and a program is compiled


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "images" / name / f"{i}.png")
    model = classifier("cifar", 3)
    build_index(model, folder / "index", [folder / "images"])
    return open_index(folder / "index", model)


def test_what_is_alike_is_named_from_the_folder_of_all_images(index):
    app, _ = fake_app(limits=PATIENT, searched={"fake": Searched(index)})
    content = (index.folder.parent / "images" / "b" / "1.png").read_bytes()
    answer = ask(app, "POST", f"{PATH}?top=2", content=content)
    assert answer.status_code == 200
    (hits,) = answer.json()["hits"]
    assert hits[0] == {"file": "b/1.png", "similarity": pytest.approx(1, abs=1e-4)}
    assert len(hits) == 2
    assert str(index.folder.parent) not in answer.text
    counted = ask(app, "GET", "/metrics").text
    assert 'jaxnets_requests_total{route="/v1/models/{name}/search",status="200"} 1.0' in counted


def test_several_images_are_answered_in_order(index):
    app, _ = fake_app(limits=PATIENT, searched={"fake": Searched(index)})
    files = [("files", (name, (index.folder.parent / "images" / name).read_bytes())) for name in ("a/2.png", "b/0.png")]
    answer = ask(app, "POST", PATH, files=files)
    assert [hits[0]["file"] for hits in answer.json()["hits"]] == ["a/2.png", "b/0.png"]


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        (PATH, b"no image", 415, "unsupported_image"),
        (PATH, b"", 400, "no_image"),
        (f"{PATH}?top=0", b"x", 422, "invalid_query"),
        ("/v1/models/other/search", b"x", 404, "no_index"),
        ("/v1/models/none/search", b"x", 404, "no_such_model"),
    ],
)
def test_mistakes_are_answered(index, path, content, status, code):
    app, _ = fake_app("fake", "other", limits=PATIENT, searched={"fake": Searched(index)})
    answer = ask(app, "POST", path, content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_without_an_index_there_is_nothing_to_be_searched():
    app, _ = fake_app()
    assert ask(app, "POST", PATH, content=b"x").status_code == 404
    assert PATH.replace("fake", "{name}") not in app.openapi()["paths"]


def models_of(predictors) -> Models:
    sources = [Source(name=name, path=name) for name in predictors]
    return Models(sources, open_=lambda path, checkpoint: predictors[path], limits=Limits(), seed=0)


def test_an_index_belongs_to_a_model_that_is_served(index):
    same = classifier("cifar", 3)
    models = models_of({"one": same, "two": FakePredictor()})
    folder = str(index.folder)
    assert list(open_searched([f"one={folder}"], models)) == ["one"]
    for given, message in (
        ([folder], "say of which it is: NAME="),
        ([f"three={folder}"], "names the model 'three', which is not there"),
        ([f"one={folder}", f"one={folder}"], "one has an index already"),
        ([f"one={folder}/nowhere"], "there is no index in"),
    ):
        with pytest.raises(UserError, match=message):
            open_searched(given, models)
    assert list(open_searched([folder], models_of({"one": same}))) == ["one"]
    with pytest.raises(UserError, match="cannot be compared"):
        open_searched([folder], models_of({"one": classifier("wide", 3)}))
