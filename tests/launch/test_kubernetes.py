"""The manifests for Kubernetes hold nothing that Kubeflow, or arcdist, does not know."""

import importlib
import re
from pathlib import Path
from typing import Any

import kubernetes.client.models
import pytest
import yaml
from kubeflow_trainer_api import models as trainer_models

from arcdist.cli.compose import check_overrides, compose_config

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "launch/kubernetes"
training_models = importlib.import_module("kubeflow.training.models")


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def _unknown(value: Any, kind: str, where: str = "") -> list[str]:
    """Return the fields that a class of Kubernetes' or Kubeflow's generated models does not have, or has otherwise."""
    if match := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        return [fault for n, one in enumerate(value) for fault in _unknown(one, match[1], f"{where}[{n}]")]
    if match := re.fullmatch(r"[Dd]ict[\[(]str, (.+)[\])]", kind):
        return [fault for key, one in value.items() for fault in _unknown(one, match[1], f"{where}.{key}")]
    plain = {"str": str, "int": int, "bool": bool, "object": object, "float": float}
    if kind in plain:
        return [] if isinstance(value, plain[kind]) else [f"{where}: {value!r} is no {kind}"]
    model = getattr(training_models, kind, None) or getattr(kubernetes.client.models, kind)
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {kind}"]
    fields = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
    return [
        fault
        for key, one in value.items()
        for fault in (_unknown(one, fields[key], f"{where}.{key}") if key in fields else [f"{where}.{key}: unknown"])
    ]


def test_the_pytorchjob_has_no_field_that_its_api_does_not_know() -> None:
    (job,) = _documents("pytorchjob.yaml")
    assert _unknown(job, "KubeflowOrgV1PyTorchJob") == []
    (pod,) = (job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"],)
    pod["containers"][0]["comand"] = []
    assert _unknown(job, "KubeflowOrgV1PyTorchJob") == [
        ".spec.pytorchReplicaSpecs.Worker.template.spec.containers[0].comand: unknown"
    ]


@pytest.mark.parametrize("number", [0, 1], ids=["runtime", "job"])
def test_the_trainjob_and_its_runtime_have_no_field_that_their_api_does_not_know(number: int) -> None:
    document = _documents("trainjob.yaml")[number]
    model = getattr(trainer_models, f"TrainerV1alpha1{document['kind']}")
    assert model.from_dict(document).to_dict() == document


def test_the_trainjob_runs_on_the_runtime_beside_it() -> None:
    runtime, job = _documents("trainjob.yaml")
    reference = job["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (runtime["kind"], runtime["metadata"]["name"])


def _containers(name: str) -> dict[str, Any]:
    if name == "pytorchjob.yaml":
        return _documents(name)[0]["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    return _documents(name)[1]["spec"]["trainer"]


@pytest.mark.parametrize(("name", "ranks"), [("pytorchjob.yaml", (8, 16)), ("trainjob.yaml", (16,))])
def test_what_is_trained_on_kubernetes_composes_and_can_be_shared_by_its_ranks(name, ranks) -> None:
    arguments = _containers(name)["args"]
    check_overrides(arguments)
    config = compose_config(arguments)
    assert all(config.train.micro_batch(size) for size in ranks)
    assert len({config.train.micro_batch(size) for size in ranks}) == 1
