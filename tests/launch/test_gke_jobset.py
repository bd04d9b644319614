"""The JobSet for GKE.

Its schema belongs to the JobSet project and is not kept here. What is checked is that every key is one of those written
down below, and that the parts agree. With JOBSET_CRD set to a copy of the project's
config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml (and jsonschema installed) the whole schema is checked.
"""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxnets.flags import load_config
from jaxnets.train.stop import TEMPORARY

FILE = Path(__file__).parent.parent.parent / "launch" / "gke_jobset.yaml"

# Every key that may stand there: a dict for an object, a list of one for a list, a type for a value.
CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "env": [{"name": str, "value": str}],
    "volumeMounts": [{"name": str, "mountPath": str}],
    "ports": [{"containerPort": int}],
    "securityContext": {"privileged": bool},
    "resources": {"limits": {"google.com/tpu": int}},
}
POD = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "nodeSelector": {"cloud.google.com/gke-tpu-accelerator": str, "cloud.google.com/gke-tpu-topology": str},
    "containers": [CONTAINER],
    "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}],
}
POD_RULE = {
    "action": str,
    "onPodConditions": [{"type": str, "status": str}],
    "onExitCodes": {"containerName": str, "operator": str, "values": [int]},
}
JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode": str,
    "backoffLimit": int,
    "podFailurePolicy": {"rules": [POD_RULE]},
    "template": {"spec": POD},
}
JOBSET = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": str}},
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [{"name": str, "action": str, "onJobFailureReasons": [str]}],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def misfits(value: Any, shape: Any, path: str = "") -> list[str]:
    """Returns the places where a value is not of the shape."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [path]
        return [
            found
            for key, inner in value.items()
            for found in (misfits(inner, shape[key], f"{path}.{key}") if key in shape else [f"{path}.{key}"])
        ]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [path]
        return [found for i, inner in enumerate(value) for found in misfits(inner, shape[0], f"{path}[{i}]")]
    return [] if type(value) is shape else [path]


@pytest.fixture
def jobset():
    return yaml.safe_load(FILE.read_text())


@pytest.fixture
def job(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


@pytest.fixture
def container(job):
    return job["template"]["spec"]["containers"][0]


def test_every_key_is_known_and_its_value_of_the_right_kind(jobset, job):
    assert misfits(jobset, JOBSET) == []
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job["backofLimit"] = 0
    job["parallelism"] = "4"
    place = ".spec.replicatedJobs[0].template.spec"
    assert misfits(jobset, JOBSET) == [f"{place}.parallelism", f"{place}.backofLimit"]


def test_the_whole_schema_holds(jobset):
    if "JOBSET_CRD" not in os.environ:
        pytest.skip("set JOBSET_CRD to a copy of JobSet's CustomResourceDefinition")
    jsonschema = pytest.importorskip("jsonschema")
    crd = yaml.safe_load(Path(os.environ["JOBSET_CRD"]).read_text())
    schema = closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own, of which the schema says nothing
    jsonschema.validate(jobset, schema)
    jobset["spec"]["failurePolicy"]["maxRestart"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(jobset, schema)


def closed(schema: Any) -> Any:
    """Refuses keys that a Kubernetes schema does not list, as its server does, and writes its unions as JSON Schema."""
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema and schema.get("type") == "object":
        schema = {"additionalProperties": False, **schema}
    return {key: closed(inner) for key, inner in schema.items()}


def test_there_is_a_pod_for_each_host_of_the_slice(job, container):
    selector = job["template"]["spec"]["nodeSelector"]
    chips = math.prod(map(int, selector["cloud.google.com/gke-tpu-topology"].split("x")))
    hosts = chips // container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == hosts
    assert job["completionMode"] == "Indexed"


def test_a_mistake_ends_the_jobset_and_anything_else_restarts_it(jobset, job, container):
    disruption, mistake = job["podFailurePolicy"]["rules"]
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    codes = mistake["onExitCodes"]
    assert (mistake["action"], codes["operator"]) == ("FailJob", "In")
    assert codes["containerName"] == container["name"]
    assert not {0, TEMPORARY, 143} & set(codes["values"])
    assert 1 in codes["values"]
    [rule] = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    # Kubernetes takes a podFailurePolicy with pods that are never restarted in place alone.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["backoffLimit"] == 0


def test_what_outlives_a_pod_lies_in_the_bucket_or_the_volume_that_all_share(job, container):
    [mounted], [volume] = container["volumeMounts"], job["template"]["spec"]["volumes"]
    assert mounted["name"] == volume["name"]
    settings = dict(argument.split("=") for argument in container["args"])
    assert settings["--config.data.directory"].startswith(f"{mounted['mountPath']}/")
    assert all(place.startswith("gs://BUCKET/") for place in (settings["--workdir"], container["env"][0]["value"]))


def test_its_arguments_are_those_of_the_training(container):
    assert container["command"] == ["python", "-m", "jaxnets.main"]
    assert {argument.split("=")[0] for argument in container["args"][:2]} == {"--config", "--workdir"}
    load_config("digits", container["args"][2:])
