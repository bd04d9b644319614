"""Dashboard, alerts and Prometheus's configuration ask for what the service and the monitor really give."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from jaxnets.monitor.gauges import gauges
from jaxnets.monitor.judge import judge
from tests.monitor.made import records, rows

LAUNCH = Path(__file__).parent.parent.parent / "launch"
PROMETHEUS, GRAFANA = LAUNCH / "prometheus", LAUNCH / "grafana"
PROMTOOL = shutil.which("promtool")
ADDED = {"instance", "job"}  # by Prometheus, to all that it reads
GRAFANAS = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*"}


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((GRAFANA / "dashboards" / "jaxnets.json").read_text())


@pytest.fixture(scope="module")
def rules():
    [group] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return group["rules"]


@pytest.fixture(scope="module")
def queries(dashboard, rules):
    """Every expression, as Prometheus gets it."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for variable, value in GRAFANAS.items():
        found = [expression.replace(variable, value) for expression in found]
    return [*found, *(rule["expr"] for rule in rules)]


@pytest.fixture(scope="module")
def given():
    """The labels of each metric that there is, by its name."""
    found = {"up": ADDED}
    for name, kind, labels in declared():
        suffixes = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}[kind]
        for suffix in suffixes:
            found[name + suffix] = {*ADDED, *labels, *(("le",) if suffix == "_bucket" else ())}
    truth = rows(200)["label"]
    judged = gauges(judge(records(200, truth=truth), records(200, seed=1, truth=truth)))
    for name, labels in re.findall(r"^(\w+)\{(.*)\} \S+$", judged, re.MULTILINE):
        found.setdefault(name, set(ADDED)).update(re.findall(r'(\w+)="', labels))
    assert len(found) > 15
    return found


def declared() -> Iterator[tuple[str, str, list[str]]]:
    """Gives name, kind and labels of each metric of the service, as its source declares them."""
    for file in (LAUNCH.parent / "jaxnets" / "serve").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("Counter", "Gauge", "Histogram"):
                name, _, *labels = (ast.literal_eval(argument) for argument in node.args)
                yield name, node.func.id, labels[0] if labels else []


def test_every_metric_that_is_asked_for_exists(queries, given):
    for query in queries:
        asked = set(re.findall(r"\b(?:jaxnets_\w+|up\b)", query))
        assert asked, query
        assert asked <= given.keys(), query


def test_every_metric_of_the_monitor_and_every_kind_of_the_service_s_is_shown(queries, given):
    asked = set(re.findall(r"\bjaxnets_\w+", " ".join(queries)))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in given}
    assert families - {"up"} == {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}


def test_every_query_parses_and_its_labels_are_those_of_its_metrics(queries, given):
    promql = pytest.importorskip("promql_parser")

    def of(expression: object) -> Iterator[object]:
        yield expression
        for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
            inner = getattr(expression, name, None)
            for one in inner if isinstance(inner, list) else [inner] if inner is not None else []:
                yield from of(one)

    seen = 0
    for query in queries:
        metrics = [part for part in of(promql.parse(query)) if isinstance(part, promql.VectorSelector)]
        assert metrics, query
        for selector in metrics:
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= given[selector.name], query
            seen += len(labels)
        for labels in re.findall(r"\bby \(([\w, ]+)\)", query):
            assert all(set(labels.split(", ")) <= given[selector.name] for selector in metrics), query
    assert seen > 20


def test_what_is_declared_is_what_the_service_gives():
    pytest.importorskip("prometheus_client")
    from jaxnets.serve.meters import Meters

    meters = Meters()
    meters.answered("/v1/models", 200, 0.1)
    text = meters.text().decode()
    assert set(re.findall(r"^# TYPE (\w+?)(?:_total)? (?:counter|gauge|histogram)$", text, re.MULTILINE)) >= {
        "jaxnets_requests",
        "jaxnets_request_seconds",
        "jaxnets_model_step",
    }
    assert re.search(r'^jaxnets_requests_total\{route="/v1/models",status="200"\} 1.0$', text, re.MULTILINE)
    assert re.search(r'^jaxnets_request_seconds_bucket\{le="0.5",route="/v1/models"\} 1.0$', text, re.MULTILINE)


def test_the_route_that_is_asked_for_is_the_service_s(queries):
    pytest.importorskip("fastapi")
    from jaxnets.serve.gate import _route

    named = {route for query in queries for route in re.findall(r'route="([^"]+)"', query)}
    assert named == {_route("/v1/models/it/predict")}


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Prometheus")
def test_prometheus_takes_configuration_rules_and_queries(queries, tmp_path):
    alone = {"groups": [{"name": "q", "rules": [{"record": f"q{i}", "expr": q} for i, q in enumerate(queries)]}]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(alone))
    for arguments in (
        ("check", "config", PROMETHEUS / "prometheus.yml"),
        ("check", "rules", tmp_path / "queries.yml"),
        ("test", "rules", Path(__file__).parent / "rules_test.yaml"),
    ):
        said = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr


def test_an_alert_has_all_that_a_person_needs(rules):
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    tested = yaml.safe_load((Path(__file__).parent / "rules_test.yaml").read_text())["tests"]
    assert {case["alertname"] for test in tested for case in test["alert_rule_test"]} == set(names)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "{{ $labels." in rule["annotations"]["summary"]


def test_panels_lie_beside_each_other_and_ask_the_chosen_source(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 for at in places)
    for a, b in combinations(places, 2):
        across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
        down = a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
        assert not (across and down)
    for panel in panels:
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(source == {"type": "prometheus", "uid": "${source}"} for source in sources)
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references)
            assert panel["title"]


def test_every_variable_of_the_dashboard_is_defined_and_used(dashboard, given):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    expressions = json.dumps(dashboard["panels"])
    used = {a or b for a, b in re.findall(r"\$(?:\{(\w+)\}|(\w+))", expressions)} - {"__rate_interval"}
    assert used == variables.keys()
    for variable in variables.values():
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            assert label in given[metric]


def test_grafana_finds_the_source_and_the_dashboard_where_compose_puts_them(dashboard):
    services = yaml.safe_load((LAUNCH / "compose.yaml").read_text())["services"]
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    chosen = next(each for each in dashboard["templating"]["list"] if each["name"] == "source")
    assert (source["name"], source["uid"]) == (chosen["current"]["text"], chosen["current"]["value"])
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/jaxnets.yaml").read_text())["providers"]
    mounted = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounted
    assert ["./grafana/provisioning", "/etc/grafana/provisioning"] in mounted
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/jaxnets.json"


def test_prometheus_asks_services_that_compose_starts():
    services = yaml.safe_load((LAUNCH / "compose.yaml").read_text())["services"]
    asked = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    targets = [
        target for job in asked["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    assert {target.partition(":")[0] for target in targets} == {"serve", "gauges"} <= services.keys()
    assert "./prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert all((PROMETHEUS / name).is_file() for name in asked["rule_files"])
