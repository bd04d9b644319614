"""The image, compose.yaml and kubernetes.yaml, by the tools that check them and beside each other."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
DOCKERFILE = (LAUNCH / "Dockerfile").read_text()
HADOLINT = shutil.which("hadolint")
USER = 10001


@pytest.fixture(scope="module")
def stages():
    """The instructions of each stage of the Dockerfile: (name, arguments) by the stage's name."""
    lines = re.sub(r"\\\n(?:#.*\n)*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
    instructions = [tuple(line.split(maxsplit=1)) for line in lines if line]
    found: dict[str, list[tuple[str, str]]] = {"": []}
    for name, arguments in instructions:
        if name == "FROM":
            found[stage := arguments.split()[2]] = []
        found[stage if len(found) > 1 else ""].append((name, arguments))
    return found


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((LAUNCH / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def objects():
    """What kubernetes.yaml declares, by kind; there are two of the network's policies."""
    found = list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    return {one["kind"] if one["metadata"]["name"] != "nothing" else "Nothing": one for one in found}


@pytest.fixture(scope="module")
def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def patience():
    """Seconds from SIGTERM that the service takes at most to answer what it has accepted."""
    pytest.importorskip("fastapi")
    from jaxnets.serve.limits import Limits

    return 2 * Limits().timeout


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
def test_hadolint_has_nothing_to_say():
    said = subprocess.run([HADOLINT, LAUNCH / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_what_runs_is_built_elsewhere_and_is_nobody(stages):
    assert {"cpu", "gpu"} <= stages.keys()
    assert list(stages)[-1] == "cpu"  # what is built where no target is named
    for name in ("cpu", "gpu"):
        assert stages[name][0] == ("FROM", f"common AS {name}")
        assert ("COPY", f"--from=build-{name} /opt/jaxnets /opt/jaxnets") in stages[name]
        assert not any(instruction in ("RUN", "USER", "ENTRYPOINT", "CMD") for instruction, _ in stages[name])
    common = dict(stages["common"])
    assert common["USER"] == f"{USER}:{USER}"
    assert common["STOPSIGNAL"] == "SIGTERM"
    assert not re.search(r"apt-get|pip|gcc", common["RUN"])
    installs = re.findall(r"pip (?:install|wheel) .*", DOCKERFILE)
    assert installs
    assert all("--no-cache-dir" in line for line in installs)


def test_the_service_is_the_first_process_and_gets_its_signal(stages):
    common = dict(stages["common"])
    command = json.loads(common["ENTRYPOINT"]) + json.loads(common["CMD"])  # lists: no shell between
    assert command[:3] == ["python", "-m", "jaxnets.serve"]
    assert "--host" in command


def test_what_is_written_goes_to_one_folder(stages):
    environment = dict(item.split("=", 1) for item in shlex.split(dict(stages["common"])["ENV"]))
    assert all(environment[name].startswith("/tmp") for name in ("HOME", "XDG_CACHE_HOME"))
    assert dict(stages["common"])["WORKDIR"] == "/tmp"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Gives the port of a server that answers with this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path in ("/healthz", "/readyz") else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("where", ["Dockerfile", "compose.yaml"])
def test_the_health_check_says_what_the_service_does(stages, services, where):
    given = dict(stages["common"])["HEALTHCHECK"].partition(" CMD ")[2]
    test = json.loads(given) if where == "Dockerfile" else services["serve"]["healthcheck"]["test"][1:]
    assert test[:2] == ["python", "-c"]
    for status in (200, 503):
        with answering(status) as port:
            script = test[2].replace("8000", str(port))
            assert subprocess.run([sys.executable, "-c", script]).returncode == (status != 200)
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 1  # nobody is there


def test_what_is_copied_is_let_through_and_nothing_else(stages):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    lets = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {
        path
        for instructions in stages.values()
        for name, arguments in instructions
        if name == "COPY" and "--from" not in arguments
        for path in arguments.split()[:-1]
    }
    assert copied | {"requirements-tpu.txt"} == lets  # which the image for TPUs in the README is made by
    assert all((ROOT / path).exists() for path in lets)
    assert not any(fnmatch(path, pattern) for path in lets for pattern in ("runs*", ".git*", "tests*"))


def packages(target: str) -> dict[str, str]:
    """Returns the versions in a list of packages."""
    lines = (LAUNCH / f"packages-{target}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_lists_of_packages_are_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["serve"], *extras["gcs"], *extras["export"]]
    pinned = packages("cpu")
    for requirement in map(Requirement, asked):
        if requirement.name != "jaxnets":
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    assert not pinned.keys() & packages("gpu").keys()
    assert packages("gpu")["jax-cuda12-plugin"] == pinned["jax"] == pinned["jaxlib"]


def test_compose_is_of_its_schema():
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    said = subprocess.run([*command, LAUNCH / "compose.yaml"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_every_container_of_compose_is_locked_and_bounded(services):
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
        assert ":" in service["image"], name
        assert not service["image"].endswith(":latest"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    runs, records = services["serve"]["volumes"]
    assert (runs.endswith(":/runs:ro"), records) == (True, "records:/records")


def test_the_service_of_compose_has_time_to_end(services, patience):
    assert int(services["serve"]["stop_grace_period"].removesuffix("s")) > patience


def test_variables_of_compose_have_defaults(services):
    text = json.dumps(services).replace("$$", "")
    assert re.findall(r"\$\{\w+", text)
    assert len(re.findall(r"\$", text)) == len(re.findall(r"\$\{\w+:-[^}]*\}", text))


def test_their_arguments_are_those_of_the_commands(services, pod, run):
    asked = [(services["serve"]["command"][0], services["serve"]["command"][1:])]
    asked.append((pod["containers"][0]["args"][0], pod["containers"][0]["args"][1:]))
    looped = services["monitor"]["command"][0]
    asked.append(("jaxnets.monitor", re.findall(r"--\w+", looped)))
    for module, arguments in asked:
        known = run(module, "--help").stdout
        assert all(argument.partition("=")[0] in known for argument in arguments), module


def test_kubernetes_objects_are_of_their_schemas(objects):
    validate = pytest.importorskip("kubernetes_validate")
    for version in ("1.30", validate.latest_version()):
        for one in objects.values():
            validate.validate(one, version, strict=True)
    objects["Service"]["spec"]["port"] = 80
    with pytest.raises(validate.ValidationError):
        validate.validate(objects["Service"], version, strict=True)
    del objects["Service"]["spec"]["port"]


def test_the_objects_name_each_other(objects, pod):
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    [container] = pod["containers"]
    selectors = [objects["Deployment"]["spec"]["selector"]["matchLabels"], objects["Service"]["spec"]["selector"]]
    selectors += [objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    selectors += [objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]]
    assert all(selector == labels for selector in selectors)
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", objects["Deployment"]["metadata"]["name"])
    assert "replicas" not in objects["Deployment"]["spec"]  # each time it is applied, that would undo the autoscaler
    [variable] = container["env"]
    assert variable["valueFrom"]["configMapKeyRef"] == {
        "name": objects["ConfigMap"]["metadata"]["name"],
        "key": "MODEL",
    }
    assert f"--model=$({variable['name']})" in container["args"]
    assert objects["ConfigMap"]["data"]["MODEL"].startswith("pets=/runs/")
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
    claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert claim == objects["PersistentVolumeClaim"]["metadata"]["name"]
    [port] = container["ports"]
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    ports = [*probes, objects["Service"]["spec"]["ports"][0]["targetPort"]]
    ports += [objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"]]
    assert set(ports) == {port["name"]}
    namespace = objects["Namespace"]["metadata"]["name"]
    assert {one["metadata"].get("namespace", namespace) for one in objects.values()} == {namespace}


def test_pods_are_what_the_restricted_standard_asks(objects, pod):
    assert objects["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    [container] = pod["containers"]
    outer, inner = pod["securityContext"], container["securityContext"]
    assert (outer["runAsNonRoot"], outer["runAsUser"]) == (True, USER)
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["readOnlyRootFilesystem"] is True
    assert inner["capabilities"] == {"drop": ["ALL"]}
    kinds = {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]}
    assert kinds <= {"emptyDir", "secret", "persistentVolumeClaim"}
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    assert objects["Nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_pod_has_time_to_end(pod, patience):
    [container] = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > container["lifecycle"]["preStop"]["sleep"]["seconds"] + patience


def test_probes_ask_what_the_service_answers_without_a_key(pod):
    pytest.importorskip("fastapi")
    from jaxnets.serve.limits import Keys
    from tests.serve.fakes import ask, fake_app

    app, _ = fake_app(keys=Keys(["secret"]))
    [container] = pod["containers"]
    for kind in ("startup", "readiness", "liveness"):
        assert ask(app, "GET", container[f"{kind}Probe"]["httpGet"]["path"]).status_code == 200
