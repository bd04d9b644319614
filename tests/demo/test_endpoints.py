"""What a program gets from a running demo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.demo.conftest import ROOT
from tests.demo.test_app import free_port

pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

DIGIT = ROOT / "demo" / "examples" / "digits" / "3.png"


@pytest.fixture(scope="module")
def shown(digits_run):
    from images import open_shown

    return open_shown(str(digits_run), engine="jax")


@pytest.fixture(scope="module")
def client(shown):
    from page import build

    page = build([shown])
    page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield gradio_client.Client(page.local_url, verbose=False, analytics_enabled=False)
    page.close()


def image():
    return gradio_client.handle_file(str(DIGIT))


def test_the_endpoints_have_names_and_take_an_image_alone(client):
    described = client.view_api(return_format="dict", print_info=False)
    assert set(described["named_endpoints"]) == {"/predict", "/explain", "/predict_batch"}
    assert described["unnamed_endpoints"] == {}
    for name in ("/predict", "/explain"):
        takes = described["named_endpoints"][name]["parameters"]
        assert [one["parameter_name"] for one in takes if not one["parameter_has_default"]] == ["image"]


def test_a_prediction_is_the_library_s(client, shown):
    found = client.predict(image(), api_name="/predict")
    (expected,) = shown.classifier.predict([np.asarray(Image.open(DIGIT))])
    assert found["model"] == "few_digits"
    best = expected.argsort()[::-1][:5]
    assert [row["label"] for row in found["top"]] == [str(number) for number in best]
    np.testing.assert_allclose([row["probability"] for row in found["top"]], expected[best], atol=1e-5)


@pytest.mark.parametrize(("asked", "number"), [({"label": "7"}, 7), ({}, None)])
def test_an_explanation_is_a_map_and_a_sentence(client, shown, asked, number):
    drawn, caption = client.predict(image(), **asked, api_name="/explain")
    (p,) = shown.classifier.predict([np.asarray(Image.open(DIGIT))])
    number = int(p.argmax()) if number is None else number
    assert caption.startswith(f"**{number}** {p[number]:.1%}, as {shown.stages[-1]}")
    assert Image.open(drawn).size == Image.open(DIGIT).size


@pytest.mark.parametrize(
    ("endpoint", "asked", "message"),
    [
        ("/explain", {"label": "eleven"}, "there is no class 'eleven'"),
        ("/explain", {"stage": "stage9"}, "stage9"),
        ("/predict", {"model": "few_digit"}, r"there is no model 'few_digit' \(did you mean 'few_digits'\?\)"),
        ("/predict", {"image": None}, "give an image"),
    ],
)
def test_what_there_is_not_is_one_message(client, endpoint, asked, message):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.predict(**{"image": image(), **asked}, api_name=endpoint)


def test_a_file_that_is_no_image_is_one_message(client, tmp_path):
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"notes.png is not an image"):
        client.predict(gradio_client.handle_file(str(tmp_path / "notes.png")), api_name="/predict")


def test_a_batch_is_a_table_and_its_csv(client):
    table, file = client.predict([image(), image()], 0, api_name="/predict_batch")
    assert [row[0] for row in table["data"]] == ["3.png", "3.png"]
    assert Path(file if isinstance(file, str) else file["value"]).read_text().startswith("file,class 1,probability 1,")
