"""What a schema cannot see: names that lead nowhere inside a rendered WorkflowTemplate and its two companions."""

import json
import re
from collections.abc import Iterator
from typing import Any

TAG = re.compile(r"\{\{(.*?)\}\}")
TEMPLATE_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")  # patterns of the CRDs of Argo 4
PARAMETER_NAME = re.compile(r"[a-zA-Z0-9_][-a-zA-Z0-9_]*")
STATUS = "workflow.status"  # known in the exit handler alone; of `workflow.failures` no template may know
NAME_LIMITS = {"WorkflowTemplate": 63, "CronWorkflow": 52, "WorkflowEventBinding": 63}

Manifest = dict[str, Any]


def lint(objects: dict[str, Manifest]) -> list[str]:
    template = objects["WorkflowTemplate"]
    spec = template["spec"]
    return [
        *_names(objects),
        *_structure(spec),
        *_exit(spec),
        *(problem for item in spec["templates"] if "dag" in item for problem in _dag(item, spec)),
        *(problem for item in spec["templates"] if "container" in item for problem in _container(item, spec)),
        *_companions(objects, template),
    ]


def _names(objects: dict[str, Manifest]) -> Iterator[str]:
    for kind, found in objects.items():
        name = found["metadata"]["name"]
        if len(name) > NAME_LIMITS[kind]:
            yield f"the name {name} of the {kind} is longer than {NAME_LIMITS[kind]}"
    spec = objects["WorkflowTemplate"]["spec"]
    names = [item["name"] for item in spec["templates"]]
    yield from (f"template {name} is there twice" for name in set(names) if names.count(name) > 1)
    yield from (f"template name {name} is not allowed" for name in names if not TEMPLATE_NAME.fullmatch(name))
    for item in spec["templates"]:
        declared = _parameters(item.get("inputs")) | _parameters(item.get("outputs"))
        yield from (f"parameter name {name} is not allowed" for name in declared if not PARAMETER_NAME.fullmatch(name))


def _structure(spec: Manifest) -> Iterator[str]:
    names = {item["name"] for item in spec["templates"]}
    for role in ("entrypoint", "onExit"):
        if spec.get(role) not in names:
            yield f"{role} {spec.get(role)} is no template"
    used = {spec.get("entrypoint"), spec.get("onExit")}
    used |= {task["template"] for item in spec["templates"] for task in item.get("dag", {}).get("tasks", ())}
    used |= {step["template"] for step in _exit_steps(spec)}
    yield from (f"template {name} is never used" for name in sorted(names - used))


def _exit_steps(spec: Manifest) -> list[Manifest]:
    handler: Manifest = next((item for item in spec["templates"] if item["name"] == spec.get("onExit")), {})
    return [step for group in handler.get("steps", ()) for step in group]


def _exit(spec: Manifest) -> Iterator[str]:
    names = {item["name"] for item in spec["templates"]}
    for step in _exit_steps(spec):
        if step["template"] not in names:
            yield f"step {step['name']} uses {step['template']}, which is no template"
        for tag in _tags(step) - {STATUS}:
            yield f"step {step['name']} uses {{{{{tag}}}}}, which nothing defines"


def _dag(dag: Manifest, spec: Manifest) -> Iterator[str]:
    tasks = {task["name"]: task for task in dag["dag"]["tasks"]}
    by_name = {item["name"]: item for item in spec["templates"]}
    before = {
        name: set(re.findall(r"([a-z0-9-]+)(?:\.Succeeded)?", task.get("depends", ""))) for name, task in tasks.items()
    }
    for name, task in tasks.items():
        yield from (f"task {name} depends on {other}, which is no task" for other in before[name] - set(tasks))
        template = by_name.get(task["template"])
        if template is None:
            yield f"task {name} uses {task['template']}, which is no template"
            continue
        yield from _arguments(name, task, template)
        upstream = _upstream(name, before)
        if name in upstream:
            yield f"task {name} waits for itself"
        for tag in _tags(task) - ({"item"} if "withParam" in task else set()):
            yield from _output_tag(name, tag, upstream, tasks, by_name)


def _arguments(name: str, task: Manifest, template: Manifest) -> Iterator[str]:
    given = _parameters(task.get("arguments"))
    wanted = _parameters(template.get("inputs"))
    yield from (f"task {name} passes {extra}, which {template['name']} does not take" for extra in given - wanted)
    yield from (f"task {name} does not pass {missing}" for missing in wanted - given)


def _output_tag(
    name: str, tag: str, upstream: set[str], tasks: dict[str, Manifest], templates: dict[str, Manifest]
) -> Iterator[str]:
    match = re.fullmatch(r"tasks\.([a-z0-9-]+)\.outputs\.parameters\.([a-z0-9-]+)", tag)
    if match is None:
        yield f"task {name} uses {{{{{tag}}}}}, which is no output of a task"
        return
    source, output = match.groups()
    if source not in upstream:
        yield f"task {name} reads an output of {source}, which does not come before it"
        return
    if output not in _parameters(templates[tasks[source]["template"]].get("outputs")):
        yield f"task {name} reads {output} of {source}, which has no such output"
    if "when" in tasks[source] and f"{source}.Succeeded" not in tasks[name].get("depends", ""):
        yield f"task {name} reads an output of {source}, which may be skipped"


def _container(template: Manifest, spec: Manifest) -> Iterator[str]:
    name = template["name"]
    inputs = {f"inputs.parameters.{parameter}" for parameter in _parameters(template.get("inputs"))}
    workflow = {f"workflow.parameters.{parameter}" for parameter in _parameters(spec.get("arguments"))}
    known = inputs | workflow | {"workflow.name", "workflow.uid"}
    if name in {step["template"] for step in _exit_steps(spec)}:
        known |= {STATUS}
    yield from (f"template {name} uses {{{{{tag}}}}}, which nothing defines" for tag in _tags(template) - known)
    yield from (f"template {name} does not use its input {tag}" for tag in inputs - _tags(template))
    volumes = {item["name"] for item in template.get("volumes", ())}
    for mount in template["container"].get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"template {name} mounts {mount['name']}, which is no volume"


def _companions(objects: dict[str, Manifest], template: Manifest) -> Iterator[str]:
    wanted = _parameters(template["spec"]["arguments"])
    cron = objects["CronWorkflow"]["spec"]["workflowSpec"]
    submit = objects["WorkflowEventBinding"]["spec"]["submit"]
    for kind, started in (("CronWorkflow", cron), ("WorkflowEventBinding", submit)):
        if started["workflowTemplateRef"]["name"] != template["metadata"]["name"]:
            yield f"the {kind} starts another template"
        if objects[kind]["metadata"]["namespace"] != template["metadata"]["namespace"]:
            yield f"the {kind} is in another namespace"
        unknown = _parameters(started["arguments"]) - wanted
        yield from (f"the {kind} passes {name}, which the template does not take" for name in unknown)


def _parameters(holder: Manifest | None) -> set[str]:
    return {parameter["name"] for parameter in (holder or {}).get("parameters", ())}


def _tags(part: Manifest) -> set[str]:
    return set(TAG.findall(json.dumps(part)))


def _upstream(name: str, before: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    queue = list(before[name])
    while queue:
        item = queue.pop()
        if item not in found:
            found.add(item)
            queue += before.get(item, set())
    return found
