"""`python -m tests.plan.golden` writes the golden renderings again, from the reference document."""

import json
from pathlib import Path

import yaml

from steps.objects.group import role_based_group
from steps.objects.group_operator import GroupOperator
from steps.release import RENDERING
from tests.support.samples import release

FOLDER = Path(__file__).parent

for version in ("v1alpha1", "v1alpha2"):
    rendered = role_based_group(release(), GroupOperator(f"workloads.x-k8s.io/{version}", "s-"))
    content = {"rendering": RENDERING, "manifest": json.loads(json.dumps(rendered))}
    path = FOLDER / f"role-based-group.{version}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=120), encoding="utf-8")
