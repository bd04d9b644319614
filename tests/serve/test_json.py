"""Images in JSON as base64: what is taken, and what strangers send instead."""

import asyncio
import base64
import json
import random

import pytest

from jaxnets.serve.json_body import split_json
from jaxnets.serve.limits import Limits, Refused
from tests.serve.fakes import PREDICT, FakePredictor, ask, client_of, fake_app, image

JSON = {"content-type": "application/json"}


def encoded(value=60, **options):
    return base64.b64encode(image(value, **options)).decode()


def post(content, path=PREDICT, limits=None, **options):
    app, _ = fake_app(limits=limits, predictor=FakePredictor(embed_fitted=lambda images: images.mean((1, 2))))
    return ask(app, "POST", path, content=content, headers=JSON, **options)


def test_images_are_answered_in_their_order_as_those_of_a_form_are():
    answer = post(json.dumps({"images": [encoded(30 * i) for i in range(5)]}))
    app, _ = fake_app()
    files = [("files", (f"{i}.png", image(30 * i))) for i in range(5)]
    assert answer.json() == ask(app, "POST", PREDICT, files=files).json()
    assert [found["top"][0]["label"][-1] for found in answer.json()["predictions"]] == list("01234")


@pytest.mark.parametrize(
    "text",
    [f"data:image/png;base64,{encoded()}", f"DATA:;BASE64,{encoded()}", f"data:image/png;name=x;base64,{encoded()}",
     "\r\n".join(encoded()[i : i + 76] for i in range(0, len(encoded()), 76)), f" {encoded()}\n"],
)  # fmt: skip
def test_data_addresses_and_broken_lines_are_read(text):
    assert split_json(json.dumps({"images": [text]}).encode(), Limits()) == [image()]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ("", 400, "bad_json", "images"), ("{", 400, "bad_json", "images"), ("\xff\xfe", 400, "bad_json", "images"),
        ('{"images": [NaN]}', 400, "bad_json", "NaN"), ('{"images": [-Infinity]}', 400, "bad_json", "Infinity"),
        ('{"images": [%s]}' % ("9" * 5000), 400, "bad_json", "images"),
        ("[" * 100_000, 400, "bad_json", "nested too deeply"),
        ('{"images":' * 100_000, 400, "bad_json", "nested too deeply"),
        ("null", 422, "no_field_images", "found null"), ("[]", 422, "no_field_images", "found a list"),
        ("1e999", 422, "no_field_images", "found a number"), ("true", 422, "no_field_images", "true or false"),
        ('{"image": "x"}', 422, "no_field_images", "found the fields 'image'"),
        ('{"images": [], "\\ud800": 1}', 422, "unknown_field", "\\ud800"),
        ('{"images": "x"}', 422, "no_list", "found a string"), ('{"images": {}}', 422, "no_list", "found an object"),
        ('{"images": []}', 400, "no_image", "at least one"),
        ('{"images": [null]}', 422, "bad_base64", "image 1 must be a string of base64, found null"),
        ('{"images": [1e400]}', 422, "bad_base64", "found a number"),
        ('{"images": ["AA-_"]}', 422, "bad_base64", "image 1 is no base64"),
        ('{"images": ["AAA"]}', 422, "bad_base64", "filled up with ="),
        ('{"images": ["=AAA"]}', 422, "bad_base64", "image 1"), ('{"images": ["\\ud800"]}', 422, "bad_base64", ""),
        ('{"images": ["https://example.org/x.png"]}', 422, "bad_base64", "nothing is fetched"),
        ('{"images": ["data:image/svg+xml,<svg/>"]}', 422, "bad_base64", "without base64"),
        ('{"images": [""]}', 415, "unsupported_image", "image 1"),
        ('{"images": ["AAAA"]}', 415, "unsupported_image", "image 1"),
        (json.dumps({"images": [encoded()[:60] + "===="[: -60 % 4]]}), 422, "damaged_image", "image 1"),
        (json.dumps({"images": [encoded()] * 17}), 413, "too_many_images", "17"),
    ],
)  # fmt: skip
def test_what_is_refused_and_how(body, status, code, says):
    answer = post(body.encode("latin-1"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert says in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize(
    ("limits", "code"),
    [(Limits(max_bytes=50), "body_too_large"), (Limits(max_pixels=63), "too_many_pixels"),
     (Limits(max_images=1), "too_many_images")],
)  # fmt: skip
def test_the_limits_hold(limits, code):
    answer = post(json.dumps({"images": [encoded()] * 2}), limits=limits)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, code)


def test_embeddings_take_json_and_an_explanation_takes_one_image():
    two = json.dumps({"images": [encoded(), encoded(90)]})
    assert post(two, "/v1/models/fake/embed").json()["embeddings"] == [[60.0], [90.0]]
    answer = post(two, "/v1/models/fake/explain")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_images")


def test_the_description_has_the_schema_and_an_example_that_is_taken():
    app, _ = fake_app()
    description = ask(app, "GET", "/openapi.json").json()
    for route in ("predict", "explain", "embed"):
        operation = description["paths"][f"/v1/models/{{name}}/{route}"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["schema"]["properties"]["images"]["items"] == {"type": "string", "contentEncoding": "base64"}
        assert (content["schema"]["properties"]["images"].get("maxItems") == 1) == (route == "explain")
    answer = description["paths"]["/v1/models/{name}/predict"]["post"]["responses"]["200"]
    fields = answer["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]["properties"]
    assert fields["id"]["pattern"] == "^[0-9a-f]{16}$"
    assert post(json.dumps(content["example"])).status_code == 200


def test_no_body_is_the_service_s_failure():
    """Valid requests with bytes changed, cut or doubled, and trees of JSON that somebody made up."""
    draw = random.Random(0)
    valid = json.dumps({"images": [encoded(), f"data:image/png;base64,{encoded(90)}"]}).encode()

    def tree(depth):
        kind = draw.randrange(8 if depth else 5)
        if kind > 4:
            return [tree(depth - 1) for _ in range(draw.randrange(4))] if kind < 7 else {"images": tree(depth - 1)}
        return [None, draw.random() < 0.5, draw.choice([0, -1, 1e300, 10**40]), encoded(), "\ud800é\0"][kind]

    def changed():
        body = bytearray(valid)
        for _ in range(draw.randrange(1, 6)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        start = draw.randrange(len(body))
        return bytes(body[:start] + body[start : start + draw.randrange(40)] + body[start:][: draw.randrange(400)])

    bodies = [changed() if number % 2 else json.dumps(tree(4)).encode() for number in range(400)]

    async def statuses():
        app, _ = fake_app()
        async with client_of(app) as client:
            return [(await client.post(PREDICT, content=body, headers=JSON)).status_code for body in bodies]

    found = asyncio.run(statuses())
    assert set(found) <= {200, 400, 413, 415, 422}
    assert len(set(found)) >= 4


def test_reading_needs_no_more_than_a_body_may_hold():
    with pytest.raises(Refused) as refused:
        split_json(b'{"images": [' + b"0," * 1_000_000 + b"0]}", Limits())
    assert refused.value.code == "too_many_images"
