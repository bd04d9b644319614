"""What each request is answered with, in this process."""

import asyncio
import json
import logging
import struct
import time
import zlib
from pathlib import Path

import pytest

from jaxnets.errors import UserError
from jaxnets.serve.limits import Keys, Limits, read_keys
from jaxnets.serve.source import Source, Split
from tests.serve.fakes import PREDICT, FakePredictor, ask, client_of, fake_app, image

MODELS = "/v1/models"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'


def predict(content=None, path=PREDICT, limits=None, **options):
    app, _ = fake_app(limits=limits)
    return ask(app, "POST", path, content=content, **options)


def assert_refused(answer, status, code, says=""):
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert says in answer.json()["error"]["message"]
    assert answer.headers["content-type"] == "application/json"


def bomb(width=50_000, height=50_000):
    """Returns a PNG of a few bytes that claims to be huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_an_image_is_named_with_the_most_probable_class_first():
    answer = predict(image(60), path=f"{PREDICT}?top=2")
    assert answer.status_code == 200
    (found,) = answer.json()["predictions"]
    assert found["top"][0] == {"label": "class 2", "probability": 1.0}
    assert len(found["top"]) == 2
    assert answer.json()["step"] == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_each_format_is_read_whatever_the_header_says(kind):
    answer = predict(image(60, kind=kind), headers={"content-type": "image/jpeg"})
    assert answer.json()["predictions"][0]["top"][0]["label"] == "class 2"


def test_what_takes_too_long_beside_the_predictions_is_a_timeout():
    predictor = FakePredictor(embed_fitted=lambda images: time.sleep(1))
    app, _ = fake_app(limits=Limits(timeout=0.2), predictor=predictor)
    answer = ask(app, "POST", "/v1/models/fake/embed", content=image())
    assert_refused(answer, 504, "timeout", "no answer within 0.2 s")


def test_the_images_of_a_form_are_answered_in_order():
    files = [("files", (f"{i}.png", image(30 * i))) for i in range(5)]
    answer = predict(files=files)
    assert [found["top"][0]["label"][-1] for found in answer.json()["predictions"]] == list("01234")


def test_two_formats_in_one_file_are_read_as_the_one_it_begins_with():
    answer = predict(image(60, kind="JPEG") + b"PK\x05\x06" + b"\0" * 18)
    assert answer.json()["predictions"][0]["top"][0]["label"] == "class 2"


@pytest.mark.parametrize("name", ["other", "..%2F..%2Fetc", "..", "fake%00", "%2e%2e%2ffake"])
def test_no_such_model(name):
    answer = predict(image(), path=f"/v1/models/{name}/predict")
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["code"] in ("no_such_model", "not_found", "method_not_allowed")


def test_a_path_into_the_file_system_is_not_found():
    assert_refused(predict(image(), path="/v1/models/../../etc/predict"), 404, "not_found")


def test_an_empty_body():
    assert_refused(predict(b""), 400, "no_image")


def test_an_empty_form():
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert_refused(predict(b"--x--\r\n", headers=kind), 400, "no_image")


@pytest.mark.parametrize(
    "body", [b"nothing", b"--x\r\nContent-Disposition: form-data; name=files\r\n\r\nabc", b"\0" * 99]
)
def test_a_form_that_is_none(body):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert_refused(predict(body, headers=kind), 400, "bad_form")


def test_a_field_that_is_no_file():
    assert_refused(predict(data={"url": "http://x/y.png"}, files={"files": image()}), 422, "unknown_field", "url")


@pytest.mark.parametrize("content", [b"a text file", SVG, b"GIF89a\1\0\1\0\0\0\0;", b"%PDF-1.7\n"])
def test_what_is_no_image(content):
    assert_refused(predict(content), 415, "unsupported_image", "JPEG, PNG, WebP or BMP")


def test_an_svg_that_says_so():
    assert_refused(predict(SVG, headers={"content-type": "image/svg+xml"}), 415, "unsupported_image")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded"])
def test_a_body_that_says_that_it_is_no_image(kind):
    assert_refused(predict(b"{}", headers={"content-type": kind}), 415, "unsupported_media_type", kind)


def test_an_image_that_is_cut_off():
    assert_refused(predict(image(60, (99, 99), "JPEG")[:-200]), 422, "damaged_image")


def test_one_damaged_image_of_many_is_named():
    answer = predict(files=[("files", ("good.png", image())), ("files", ("bad.png", image(60, (99, 99))[:70]))])
    assert answer.status_code == 422
    assert "image 2 ('bad.png')" in answer.json()["error"]["message"]


def test_an_image_of_too_many_pixels():
    assert_refused(predict(image(0, (21, 20)), limits=Limits(max_pixels=400)), 413, "too_many_pixels", "21 × 20")


@pytest.mark.parametrize("size", [(50_000, 50_000), (9_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size):
    assert predict(bomb(*size)).status_code in (413, 422)


def test_a_jpeg_of_very_many_scans_is_not_decoded():
    whole = image(60, (64, 64), "JPEG", progressive=True)
    start = whole.index(b"\xff\xda")
    bad = whole[:start] + whole[start:-2] * 200 + b"\xff\xd9"
    assert_refused(predict(bad), 422, "damaged_image", "scans")


def test_too_many_images():
    files = [("files", image()) for _ in range(3)]
    assert_refused(predict(files=files, limits=Limits(max_images=2)), 413, "too_many_images")


def test_a_body_that_says_that_it_is_too_long():
    assert_refused(predict(b"x" * 101, limits=Limits(max_bytes=100)), 413, "body_too_large", "101")


def test_a_body_without_a_length_is_read_up_to_the_limit():
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 100

    answer = predict(endless(), limits=Limits(max_bytes=1000, timeout=2))
    assert_refused(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_a_body_that_comes_too_slowly():
    async def slow():
        for _ in range(100):
            yield b"x"
            await asyncio.sleep(0.05)

    assert_refused(predict(slow(), limits=Limits(timeout=0.2)), 408, "slow_upload")


@pytest.mark.parametrize("top", ["0", "-1", "many", "1001", ""])
def test_a_top_that_is_out_of_range(top):
    assert_refused(predict(image(), path=f"{PREDICT}?top={top}"), 422, "invalid_query", "top")


def test_a_method_that_is_not_answered():
    app, _ = fake_app()
    assert_refused(ask(app, "GET", PREDICT), 405, "method_not_allowed")


def test_a_path_that_is_not_there():
    app, _ = fake_app()
    assert_refused(ask(app, "GET", "/nothing"), 404, "not_found")


@pytest.mark.parametrize(
    "given", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "secre"}, {"authorization": "x"}]
)
def test_without_a_key_nothing_is_answered_but_the_probes(given):
    app, _ = fake_app(keys=Keys(["secret"]))
    answer = ask(app, "POST", PREDICT, content=image(), headers=given)
    assert_refused(answer, 401, "unauthorized", "Bearer")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ask(app, "GET", "/metrics", headers=given).status_code == 401
    assert ask(fake_app(keys=Keys(["secret"]))[0], "GET", "/healthz", headers=given).status_code == 200


@pytest.mark.parametrize("given", [{"authorization": "Bearer secret"}, {"x-api-key": "secret"}])
def test_with_a_key_it_is_answered(given):
    app, _ = fake_app(keys=Keys(["other", "secret"]))
    assert ask(app, "POST", PREDICT, content=image(), headers=given).status_code == 200


def test_keys_are_read_one_a_line(tmp_path):
    (tmp_path / "keys").write_text("# of the team\nfirst\n\nsecond\n")
    keys = read_keys(tmp_path / "keys")
    keys.check(b"Bearer second", b"")
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(UserError, match="no API key"):
        read_keys(tmp_path / "empty")


def test_overload_is_refused_at_once_with_a_time_to_come_back():
    app, made = fake_app(limits=Limits(queue=2, timeout=5))
    engine = made["fake"].engine

    async def body():
        async with client_of(app) as client:
            engine.open.clear()
            waiting = [asyncio.create_task(client.post(PREDICT, content=image())) for _ in range(2)]
            await asyncio.sleep(0.1)
            refused = await client.post(PREDICT, content=image())
            engine.open.set()
            return refused, await asyncio.gather(*waiting)

    refused, answered = asyncio.run(body())
    assert_refused(refused, 503, "overloaded", "2 images wait and 2 may, by the latency that is allowed (0.08 s) × the")
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answered] == [200, 200]


def test_an_idle_service_answers_64_requests_at_once():
    app, made = fake_app(limits=Limits(timeout=20))
    made["fake"].engine.seconds = 0.01  # for each batch; what is measured first is a batch of one

    async def body():
        async with client_of(app) as client:
            return await asyncio.gather(*(client.post(PREDICT, content=image(4 * i)) for i in range(64)))

    answers = asyncio.run(body())
    assert [answer.status_code for answer in answers] == [200] * 64
    found = [answer.json()["predictions"][0]["top"][0]["label"] for answer in answers]
    assert found == [f"class {4 * i // 26}" for i in range(64)]


def test_an_answer_that_takes_too_long():
    app, made = fake_app(limits=Limits(timeout=0.2))
    made["fake"].engine.seconds = 0.5
    assert_refused(ask(app, "POST", PREDICT, content=image()), 504, "timeout")


def test_a_client_that_leaves_is_not_computed_for():
    app, made = fake_app()
    engine = made["fake"].engine
    engine.batches.clear()

    async def body():
        scope = {
            "type": "http", "method": "POST", "path": PREDICT, "raw_path": PREDICT.encode(), "query_string": b"",
            "headers": [], "http_version": "1.1", "scheme": "http", "server": ("s", 1), "client": ("c", 1),
            "asgi": {"version": "3.0"}, "root_path": "",
        }  # fmt: skip
        sent: list[dict] = []
        messages = [{"type": "http.request", "body": image(), "more_body": False}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        async with client_of(app) as client:
            engine.open.clear()
            first = asyncio.create_task(client.post(PREDICT, content=image()))
            await asyncio.sleep(0.1)
            await app(scope, receive, send)
            engine.open.set()
            await first
            metrics = (await client.get("/metrics")).text
        assert 'status="499"' in metrics

    asyncio.run(body())
    assert engine.batches == [1]


def test_an_engine_that_fails_is_logged_and_says_nothing_of_its_insides(caplog):
    app = failing_app()
    with caplog.at_level(logging.ERROR):
        answer = ask(app, "POST", PREDICT, content=image())
    assert_refused(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "secret insides" in caplog.text


def failing_app():
    """Returns an application whose model fails, and that is told to stop meanwhile."""
    app, _ = fake_app()

    def fail(images):
        app.state.stopping = True
        raise RuntimeError("secret insides")

    app.user_middleware[0].kwargs["models"].served["fake"].current.batcher._compute = fail
    return app


def test_a_failure_is_counted_as_one():
    async def body():
        async with client_of(failing_app()) as client:
            await client.post(PREDICT, content=image())
            return (await client.get("/metrics")).text

    figures = asyncio.run(body())
    assert 'route="/v1/models/{name}/predict",status="500"} 1.0' in figures
    assert 'status="499"' not in figures


def test_a_failure_ends_the_connection_while_stopping():
    assert ask(failing_app(), "POST", PREDICT, content=image()).headers["connection"] == "close"


def test_logs_hold_nothing_of_an_image(caplog):
    content = b"very private" + image()
    with caplog.at_level(logging.DEBUG):
        predict(content)
        predict(files={"files": ("name.png", content)})
    assert "private" not in caplog.text


def test_while_stopping_nothing_new_is_taken():
    app, _ = fake_app()
    app.state.stopping = True
    assert_refused(ask(app, "GET", "/readyz"), 503, "stopping")
    app, _ = fake_app()
    app.state.stopping = True
    answer = ask(app, "POST", PREDICT, content=image())
    assert_refused(answer, 503, "stopping")
    assert answer.headers["connection"] == "close"


def test_the_models_are_listed():
    app, _ = fake_app("a", "b", splits=[Split("ab", {"a": 0.9, "b": 0.1})])
    found = ask(app, "GET", MODELS).json()["models"]
    assert [model["name"] for model in found] == ["a", "b", "ab"]
    assert found[0]["labels"][1] == "class 1"
    assert found[0]["input"] == {"height": 8, "width": 8, "channels": 1}


def test_a_split_gives_each_model_its_share():
    app, _ = fake_app("a", "b", splits=[Split("ab", {"a": 0.75, "b": 0.25})])

    async def body():
        async with client_of(app) as client:
            answers = [await client.post("/v1/models/ab/predict", content=image()) for _ in range(200)]
        return [answer.json()["model"] for answer in answers]

    assert 0.65 < asyncio.run(body()).count("a") / 200 < 0.85


@pytest.mark.parametrize("text", ["ab", "ab=a", "ab=a:0.5,b:0.6", "ab=a:x", "=a:1", "ab=a:-1,b:2"])
def test_a_split_that_does_not_add_up(text):
    with pytest.raises(UserError, match="--split"):
        Split.parse(text)


def test_a_split_of_what_is_not_served():
    with pytest.raises(UserError, match="'c', which is not served"):
        fake_app("a", "b", splits=[Split("ab", {"a": 0.5, "c": 0.5})])


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [("efficientnet_lite0", "efficientnet_lite0", "efficientnet_lite0"), ("pets=runs/x", "pets", "runs/x"),
     ("runs/digits", "digits", "runs/digits"), ("hf:timm/resnet18", "resnet18", "hf:timm/resnet18")],
)  # fmt: skip
def test_a_model_is_called_as_its_directory_unless_it_is_named(text, name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("runs/x", "runs/digits"):
        Path(run).mkdir(parents=True)
        for file in ("config.json", "model.json"):
            (Path(run) / file).write_text("{}")
    source = Source.parse(text)
    assert (source.name, source.path) == (name, path)


def test_the_figures_count_requests_batches_and_the_step():
    app, _ = fake_app(predictor=FakePredictor(step=7))

    async def body():
        async with client_of(app) as client:
            await client.post(PREDICT, content=image())
            await client.post("/v1/models/x/predict", content=image())
            await client.get("/some/path")
            return (await client.get("/metrics")).text

    text = asyncio.run(body())
    assert 'jaxnets_requests_total{route="/v1/models/{name}/predict",status="200"} 1.0' in text
    assert 'jaxnets_requests_total{route="/v1/models/{name}/predict",status="404"} 1.0' in text
    assert 'jaxnets_requests_total{route="other",status="404"} 1.0' in text
    assert 'jaxnets_batch_images_count{model="fake"} 1.0' in text
    assert 'jaxnets_queue_images{model="fake"} 0.0' in text
    assert 'jaxnets_model_step{model="fake"} 7.0' in text


def test_the_description_has_every_route_with_examples_and_statuses():
    app, _ = fake_app(keys=Keys(["secret"]))
    description = ask(app, "GET", "/openapi.json").json()
    operation = description["paths"]["/v1/models/{name}/predict"]["post"]
    assert set(operation["responses"]) >= {"200", "400", "401", "404", "408", "413", "415", "422", "503", "504"}
    assert "multipart/form-data" in operation["requestBody"]["content"]
    assert operation["responses"]["200"]["content"]["application/json"]["example"]["predictions"]
    assert operation["parameters"][0]["example"] == "fake"
    assert operation["security"] == [{"bearer": []}, {"key": []}]
    assert "HTTPValidationError" not in json.dumps(description["paths"])
