"""The demo as a visitor meets it, in a headless Chromium."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxnets
from tests.conftest import environment
from tests.demo.conftest import ROOT, wait_for
from tests.demo.test_app import free_port

pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")

PHOTOS = ROOT / "demo" / "examples" / "photos"


@pytest.fixture(scope="module")
def address(digits_run, tmp_path_factory):
    """A demo of two models, as a command in another process."""
    port = free_port()
    command = [sys.executable, ROOT / "demo" / "app.py", "--port", port, "--model", "efficientnet_lite0"]
    log = tmp_path_factory.mktemp("demo") / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*map(str, command), "--model", str(digits_run)], env=environment(), stdout=output, stderr=output
        )
        try:
            wait_for(lambda: "open http" in log.read_text() or server.poll() is not None)
            assert server.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def page(browser, address):
    """A fresh visit, 1280 pixels wide."""
    return visit(browser, address, 1280, 1000)


def visit(browser: Any, address: str, width: int, height: int) -> Any:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(address)
    wait_for(lambda: find(browser, "#image input[type=file]"))
    return browser


def find(page: Any, selector: str) -> Any:
    """Returns the first element, or None."""
    return next(iter(page.find_elements("css selector", selector)), None)


def text_of(page: Any, selector: str) -> str:
    element = find(page, selector)
    return element.text if element else ""


def upload(page: Any, file: Path) -> None:
    find(page, "#image input[type=file]").send_keys(str(file))


def map_of(page: Any, model: int) -> str:
    """Returns the address of a map, or nothing while there is none."""
    image = find(page, f"#map-{model} img")
    return image.get_attribute("src") if image and image.get_property("naturalWidth") else ""


def width_of(page: Any) -> int:
    """Returns how wide the page is, what lies outside the window included."""
    return page.execute_script("return document.documentElement.scrollWidth")


def tab(page: Any, number: int) -> None:
    wait_for(lambda: page.find_elements("css selector", "button[role=tab]"))[number].click()


def test_an_uploaded_image_gets_the_library_s_prediction_and_maps_of_both_models(page):
    upload(page, PHOTOS / "chelsea.jpg")
    wait_for(lambda: "%" in text_of(page, "#prediction-0") and "%" in text_of(page, "#prediction-1"))
    classifier = jaxnets.load("efficientnet_lite0")
    (p,) = classifier.predict([np.asarray(Image.open(PHOTOS / "chelsea.jpg"))])
    shown = text_of(page, "#prediction-0").splitlines()
    best = p.argsort()[::-1][:5]
    assert [shown[line] for line in (2, 4, 6, 8, 10)] == [classifier.labels[number] for number in best]
    assert [shown[line] for line in (3, 5, 7, 9, 11)] == [f"{round(100 * p[number])}%" for number in best]
    wait_for(lambda: map_of(page, 0) and map_of(page, 1))
    assert f"{classifier.labels[best[0]]} {p[best[0]]:.1%}" in text_of(page, "#caption-0")


def test_another_class_gives_another_map(page):
    upload(page, PHOTOS / "chelsea.jpg")
    first = wait_for(lambda: map_of(page, 0))
    field = find(page, "#class-0 input")
    field.click()
    field.send_keys(webdriver.Keys.CONTROL, "a")
    field.send_keys("goldfish")
    wait_for(lambda: find(page, "ul[role=listbox] li")).click()
    wait_for(lambda: "goldfish" in text_of(page, "#caption-0"))
    other = wait_for(lambda: map_of(page, 0) not in ("", first) and map_of(page, 0))
    assert other != first
    assert "goldfish" in text_of(page, "#caption-0")


def test_a_sample_is_a_click_away(page):
    assert "%" not in text_of(page, "#prediction-0")
    wait_for(lambda: find(page, "#samples button")).click()
    shown = wait_for(lambda: "%" in text_of(page, "#prediction-0") and text_of(page, "#prediction-0"))
    assert any(label in shown for label in jaxnets.load("efficientnet_lite0").labels)


def test_what_is_no_image_gets_a_message_and_the_next_image_its_prediction(page, tmp_path):
    (tmp_path / "broken.png").write_text("hello")
    upload(page, tmp_path / "broken.png")
    wait_for(lambda: "broken.png is not an image that can be read" in text_of(page, "body"))
    assert "%" not in text_of(page, "#prediction-0")
    page.find_element("css selector", "#image button[aria-label='Remove Image']").click()
    upload(wait_for(lambda: find(page, "#image input[type=file]") and page), PHOTOS / "rocket.jpg")
    shown = wait_for(lambda: "%" in text_of(page, "#prediction-0") and text_of(page, "#prediction-0"))
    classifier = jaxnets.load("efficientnet_lite0")
    assert classifier.labels_of(classifier.predict(PHOTOS / "rocket.jpg"))[0][0] in shown.splitlines()


def test_a_batch_gives_a_table_and_its_csv(page, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    tab(page, 1)
    files = [PHOTOS / "coffee.jpg", tmp_path / "notes.txt"]
    wait_for(lambda: find(page, "#files input[type=file]")).send_keys("\n".join(map(str, files)))
    wait_for(lambda: "coffee" in text_of(page, "#files") and "notes" in text_of(page, "#files"))
    find(page, "#start").click()
    wait_for(lambda: "espresso" in text_of(page, "#table") and "is not an image" in text_of(page, "#table"))
    assert width_of(page) == 1280
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    wait_for(lambda: find(page, "#csv").is_enabled())
    find(page, "#csv").click()
    wait_for((tmp_path / "predictions.csv").is_file)
    heads, coffee, notes = csv.reader((tmp_path / "predictions.csv").read_text().splitlines())
    assert heads[:3] == ["file", "class 1", "probability 1"]
    assert coffee[:2] == ["coffee.jpg", "espresso"]
    assert notes[0] == "notes.txt"
    assert "is not an image" in notes[-1]


def test_a_run_s_tab_draws_its_curves_and_lists_its_configuration(page):
    tab(page, 3)
    drawn = wait_for(lambda: page.find_elements("css selector", ".vega-embed, .vega-container canvas, svg.marks"))
    assert drawn[0].size["width"] > 100
    assert wait_for(lambda: "batch_size" in text_of(page, "body") and "75,002" in text_of(page, "body"))


def test_a_phone_has_nothing_to_scroll_sideways(browser, address):
    page = visit(browser, address, 390, 844)
    upload(page, PHOTOS / "chelsea.jpg")
    wait_for(lambda: map_of(page, 0) and map_of(page, 1))
    assert width_of(page) == 390
    tab(page, 1)
    wait_for(lambda: find(page, "#files input[type=file]")).send_keys(str(PHOTOS / "coffee.jpg"))
    wait_for(lambda: "coffee" in text_of(page, "#files"))
    find(page, "#start").click()
    wait_for(lambda: "espresso" in text_of(page, "#table"))
    assert width_of(page) == 390


def test_the_page_fetches_nothing_from_elsewhere(page, address):
    upload(page, PHOTOS / "chelsea.jpg")
    wait_for(lambda: map_of(page, 0))
    fetched = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert fetched
    assert [name for name in fetched if not name.startswith((address, "blob:", "data:"))] == []


@pytest.fixture
def labelling(browser, digits_run, tmp_path):
    """A page with a table to label: three digits, the guess of the second wrong."""
    from images import open_shown
    from page import build

    from jaxnets.select.checking import Checking
    from jaxnets.select.table import Row, write_table

    rows = []
    for name, guess in (("3", "3"), ("5", "7"), ("8", "8")):
        file = ROOT / "demo" / "examples" / "digits" / f"{name}.png"
        (tmp_path / file.name).write_bytes(file.read_bytes())
        rows.append(Row(str(tmp_path / file.name), (guess,), "train", guess=(guess,), probability=0.5))
    write_table(tmp_path / "next.csv", tmp_path, rows)
    page = build([open_shown(str(digits_run), engine="jax")], None, Checking(tmp_path / "next.csv"))
    page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, ssr_mode=False)
    visit(browser, page.local_url, 1280, 1000)
    yield browser, tmp_path / "next.csv"
    page.close()


def test_a_table_is_labelled_by_keyboard(labelling):
    page, table = labelling

    def press(*keys: str) -> None:
        webdriver.ActionChains(page).send_keys(*keys).perform()

    def note() -> str:
        return text_of(page, "#label-note")

    tab(page, 2)
    wait_for(lambda: "3.png" in note() and "3 of 3" in note())
    wait_for(lambda: find(page, "#label-image img"))
    press(webdriver.Keys.ENTER)  # the guess is right
    wait_for(lambda: "5.png" in note() and "2 of 3" in note())
    press("6")  # the sixth class: 5
    wait_for(lambda: page.find_elements("css selector", "#label-class input")[5].is_selected())
    press(webdriver.Keys.ENTER)
    wait_for(lambda: "8.png" in note() and "1 of 3" in note())
    press(webdriver.Keys.ARROW_LEFT)
    wait_for(lambda: "5.png" in note() and "checked" in note())
    press(webdriver.Keys.ARROW_RIGHT)
    wait_for(lambda: "8.png" in note())
    press(webdriver.Keys.ENTER)
    wait_for(lambda: "All 3 images are checked" in note())
    rows = [row[:5] for row in csv.reader(table.read_text().splitlines()[1:])]
    assert rows == [
        ["3.png", "3", "3", "0.5000", "yes"],
        ["5.png", "5", "7", "0.5000", "yes"],
        ["8.png", "8", "8", "0.5000", "yes"],
    ]
