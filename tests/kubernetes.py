"""Validates packaging/kubernetes against the schemas of Kubernetes, and prints the arguments of its container.

usage: kubernetes.py DIRECTORY
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

directory = pathlib.Path(sys.argv[1])
kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
files = {file.name for file in directory.glob("*.yaml")} - {"kustomization.yaml"}
assert files == set(kustomization["resources"]), "each file is a resource"
resources = {}
for name in kustomization["resources"]:
    resource = yaml.safe_load((directory / name).read_text())
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    resources[resource["kind"]] = resource

deployment = resources["Deployment"]["spec"]
pod = deployment["template"]["spec"]
labels = deployment["template"]["metadata"]["labels"]
assert deployment["selector"]["matchLabels"].items() <= labels.items()
assert resources["Service"]["spec"]["selector"].items() <= labels.items()
assert resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()

[container] = pod["containers"]
[port] = container["ports"]
[served] = resources["Service"]["spec"]["ports"]
probed = [container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")]
assert {port["name"], served["targetPort"], *probed} == {"ws"}
assert container["args"][-1].endswith(f":{port['containerPort']}")

security = pod["securityContext"] | container["securityContext"]
assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
assert security["capabilities"] == {"drop": ["ALL"]} and not security["allowPrivilegeEscalation"]
stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
print(json.dumps({"args": container["args"], "grace": pod["terminationGracePeriodSeconds"] - stop}))
