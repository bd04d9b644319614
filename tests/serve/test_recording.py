"""What a service that records answers, and what is then in the log."""

import asyncio

from jaxnets.monitor.log import read_log
from jaxnets.monitor.recorder import Bounds, Recorder
from tests.serve.fakes import PREDICT, ask, client_of, fake_app, image


def test_each_image_of_a_request_has_a_record_with_the_number_of_its_answer(tmp_path):
    app, _ = fake_app(recorder=Recorder(tmp_path))
    files = [("files", (f"{i}.png", image(60 * i, size=(20 + i, 10)))) for i in range(3)]
    answer = ask(app, "POST", PREDICT, files=files).json()["predictions"]
    found = read_log(tmp_path / "fake").rows
    assert [one["id"] for one in answer] == [f"{number:016x}" for number in found["id"].tolist()]
    assert found["label"].tolist() == [0, 2, 4]
    assert found["width"].tolist() == [20, 21, 22]
    assert found["height"].tolist() == [10, 10, 10]
    assert (found["latency"] > 0).all()
    assert [one["top"][0]["label"] for one in answer] == ["class 0", "class 2", "class 4"]
    assert [len(one["top"]) for one in answer] == [5, 5, 5]


def test_without_records_there_is_no_number(tmp_path):
    app, _ = fake_app()
    assert set(ask(app, "POST", PREDICT, content=image()).json()["predictions"][0]) == {"top"}


def test_refused_requests_leave_no_record_and_images_are_not_kept(tmp_path):
    app, _ = fake_app(recorder=Recorder(tmp_path))

    async def several():
        async with client_of(app) as client:
            await client.post(PREDICT, content=b"no image")
            await client.post(PREDICT, content=image())
            await client.post("/v1/models/fake/predict?top=0", content=image())

    asyncio.run(several())
    assert len(read_log(tmp_path / "fake")) == 1
    assert len(list((tmp_path / "fake").iterdir())) == 1


def test_images_are_kept_where_it_is_asked(tmp_path):
    app, _ = fake_app(recorder=Recorder(tmp_path, Bounds(images=5)))
    (found,) = ask(app, "POST", PREDICT, content=image()).json()["predictions"]
    assert (tmp_path / "fake" / "images" / f"{found['id']}.png").read_bytes() == image()
