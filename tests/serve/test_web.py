"""Pages of other origins, proxies, and the page that describes the service."""

import re

import pytest

from jaxnets.errors import UserError
from jaxnets.serve.limits import Keys, Limits
from jaxnets.serve.web import Web
from tests.serve.fakes import PREDICT, ask, fake_app, image

FRONT = "https://front.example"


def app_for(*origins, root_path="", **options):
    app, _ = fake_app(web=Web.parse(origins, root_path), **options)
    return app


def preflight(app, origin=FRONT, path=PREDICT):
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key,authorization",
    }
    return ask(app, "OPTIONS", path, headers=headers)


def test_a_browser_may_ask_for_pages_of_the_origins_that_are_given():
    answer = preflight(app_for("https://other.example", FRONT, keys=Keys(["secret"])))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == FRONT
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert set(answer.headers["access-control-allow-headers"].lower().split(",")) >= {"x-api-key", "authorization"}
    answer = ask(app_for(FRONT), "POST", PREDICT, content=image(60), headers={"origin": FRONT})
    assert answer.json()["predictions"][0]["top"][0]["label"] == "class 2"
    assert answer.headers["access-control-allow-origin"] == FRONT
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origin", ["https://front.example.evil", "http://front.example", f"{FRONT}:8443", "null"])
def test_pages_of_another_origin_may_not_read_the_answer(origin):
    app = app_for(FRONT)
    assert "access-control-allow-origin" not in preflight(app, origin).headers
    answer = ask(app_for(FRONT), "POST", PREDICT, content=image(), headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_without_the_option_no_page_may_read_the_answer():
    answer = ask(app_for(), "POST", PREDICT, content=image(), headers={"origin": FRONT})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_star_lets_all_pages_ask():
    assert preflight(app_for("*")).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("limits", "keys", "status"),
    [(Limits(), Keys(["secret"]), 401), (Limits(max_bytes=9), None, 413), (Limits(max_pixels=9), None, 413)],
)
def test_a_page_can_read_why_it_was_refused(limits, keys, status):
    app = app_for(FRONT, limits=limits, keys=keys)
    answer = ask(app, "POST", PREDICT, content=image(), headers={"origin": FRONT})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, FRONT)
    assert answer.headers["access-control-expose-headers"] == "Retry-After"


@pytest.mark.parametrize(
    "origin",
    ["front.example", f"{FRONT}/", f"{FRONT}/app", "https://*.example", "null", "", f"{FRONT},{FRONT}",
     "https://user@front.example", "https://bücher.example", "file:///x"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(UserError, match=r"--cors-origin must be SCHEME://HOST"):
        Web.parse([origin])


@pytest.mark.parametrize(
    ("given", "sent"),
    [("HTTPS://Front.Example", FRONT), (f"{FRONT}:443", FRONT), ("http://localhost:3000", "http://localhost:3000"),
     ("http://[::1]:80", "http://[::1]"), ("capacitor://localhost", "capacitor://localhost"),
     ("https://a.example:80", "https://a.example:80")],
)  # fmt: skip
def test_an_origin_is_compared_as_browsers_write_it(given, sent):
    assert Web.parse([given]).origins == (sent,)


@pytest.mark.parametrize("path", [PREDICT, f"/vision{PREDICT}"])
def test_a_proxy_may_take_the_root_path_away_or_leave_it(path):
    answer = ask(app_for(root_path="/vision"), "POST", path, content=image(60))
    assert answer.json()["predictions"][0]["top"][0]["label"] == "class 2"


@pytest.mark.parametrize("path", [PREDICT, f"/vision{PREDICT}", "/vision/metrics", "/vision/v1/models"])
def test_the_root_path_leads_nobody_past_the_keys(path):
    app = app_for(root_path="/vision", keys=Keys(["secret"]))
    assert ask(app, "GET" if path != PREDICT else "POST", path).status_code in (401,)


@pytest.mark.parametrize("path", ["/vision/vision/v1/models", "/visionv1/models", "/other/v1/models", "/vision"])
def test_other_paths_are_not_found(path):
    assert ask(app_for(root_path="/vision", keys=Keys(["secret"])), "GET", path).status_code == 404


def test_the_figures_name_routes_without_the_root_path():
    app = app_for(root_path="/vision")
    ask(app, "GET", "/vision/v1/models")
    text = ask(app_for(root_path="/vision"), "GET", "/vision/metrics").text
    assert "vision" not in text


@pytest.mark.parametrize("given", ["/vision", "/vision/"])
def test_the_description_says_where_the_proxy_shows_the_service(given):
    description = ask(app_for(root_path=given), "GET", "/openapi.json").json()
    assert description["servers"] == [{"url": "/vision"}]
    assert "servers" not in ask(app_for(), "GET", "/openapi.json").json()


@pytest.mark.parametrize(
    "path", ["vision", "/a b", "/a/../b", "//x", "https://a.example/x", "/v1", "/docs/x", "/ü", "/."]
)
def test_a_root_path_that_is_none_is_refused(path):
    with pytest.raises(UserError, match="--root-path"):
        Web.parse((), path)


@pytest.mark.parametrize("path", ["", "/"])
def test_no_root_path_is_the_root(path):
    assert Web.parse((), path).root_path == ""


@pytest.mark.parametrize("root_path", ["", "/vision"])
def test_the_page_that_describes_the_service_loads_nothing_from_elsewhere(root_path):
    app = app_for(root_path=root_path)
    page = ask(app, "GET", f"{root_path}/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "http" not in page.text
    assert not re.search(r"<script>|<style>| style=| on\w+=", page.text)  # which a strict policy forbids
    files = re.findall(r'(?:src|href)="(docs/[^"]*)"', page.text)
    assert len(files) == 3
    for file in files:
        answer = ask(app_for(root_path=root_path), "GET", f"{root_path}/{file}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(("text/css", "text/javascript"))
    assert 'url: "openapi.json"' in ask(app_for(), "GET", "/docs/start.js").text
