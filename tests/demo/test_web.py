"""The page that `export --format web` writes, opened as a file in a headless Chromium."""

import json

import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.errors import UserError
from jaxnets.export.__main__ import main
from jaxnets.export.web.runtime import open_runtime
from tests.demo.conftest import wait_for


@pytest.fixture(scope="module")
def page(browser, digits_run, tmp_path_factory):
    try:
        open_runtime()
    except UserError as error:
        pytest.skip(f"needs npm's registry: {error}")
    file = tmp_path_factory.mktemp("page") / "digits <1> #2?.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["export", "--model", str(digits_run), "--format", "web", "--out", str(file)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code in (0, None)
    browser.get(file.as_uri())
    wait_for(lambda: browser.find_element("id", "camera").is_enabled())
    return browser


def answers(page, *files):
    """Returns what the page says of some files, by their names."""
    page.execute_script("document.getElementById('answers').replaceChildren()")
    page.find_element("id", "files").send_keys("\n".join(map(str, files)))
    done = "#answers article[data-first], #answers article[data-error]"
    wait_for(lambda: len(page.find_elements("css selector", done)) == len(files))
    return {
        article.get_attribute("data-name"): article
        for article in page.find_elements("css selector", "#answers article")
    }


def test_it_says_of_twenty_images_what_python_says(page, digits_run, tmp_path):
    random, files = np.random.default_rng(0), []
    for i in range(20):
        mode, kind = (("L", "png"), ("RGB", "png"), ("RGB", "jpg"), ("L", "bmp"), ("RGBA", "png"))[i % 5]
        pixels = random.integers(0, 256, (*random.integers(3, 60, 2), 4), np.uint8)
        pixels[..., 3] = 255  # a canvas holds colours times their opacity, rounded
        files.append(tmp_path / f"{i}.{kind}")
        Image.fromarray(pixels, "RGBA").convert(mode).save(files[-1])
    classifier = jaxnets.load(digits_run)
    said = answers(page, *files)
    for file, row in zip(files, classifier.predict(files), strict=True):
        article = said[file.name]
        assert article.get_attribute("data-first") == classifier.labels[row.argmax()]
        assert float(article.get_attribute("data-probability")) == pytest.approx(row.max(), abs=1e-3)
        assert json.loads(article.get_attribute("data-labels")) == [classifier.labels[row.argmax()]]


def test_an_image_is_turned_as_its_exif_says(page, digits_run, tmp_path):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    (row,) = jaxnets.load(digits_run).predict(tmp_path / "turned.png")
    article = answers(page, tmp_path / "turned.png")["turned.png"]
    assert float(article.get_attribute("data-probability")) == pytest.approx(row.max(), abs=1e-5)


def test_a_file_that_is_no_image_is_named_and_the_others_answered(page, tmp_path):
    (tmp_path / "no image.png").write_text("text")
    Image.new("L", (9, 9), 77).save(tmp_path / "image.png")
    said = answers(page, tmp_path / "no image.png", tmp_path / "image.png")
    assert said["image.png"].get_attribute("data-first")
    assert "no image.png cannot be read as an image" in page.find_element("id", "answers").text


def test_the_camera_is_classified_until_it_is_stopped(page):
    button = page.find_element("id", "camera")
    button.click()
    wait_for(lambda: page.find_elements("css selector", "#live article[data-first]"))
    assert button.text == "Stop the camera"
    button.click()
    wait_for(lambda: button.text == "Use the camera")
    assert not page.find_element("id", "live").is_displayed()
