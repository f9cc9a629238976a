"""Defaults and status of a new CustomResourceDefinition."""

from typing import Any


def establish(definition: dict[str, Any], moment: str) -> dict[str, Any]:
    """The definition as one with accepted names that is served."""
    spec = definition["spec"]
    names = dict(spec["names"])
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    spec = {**spec, "names": names, "conversion": spec.get("conversion") or {"strategy": "None"}}
    if (definition.get("status") or {}).get("acceptedNames") == names:
        return {**definition, "spec": spec}
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    status = {
        "acceptedNames": names,
        "conditions": [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found", moment),
            _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", moment),
        ],
        "storedVersions": stored,
    }
    return {**definition, "spec": spec, "status": status}


def _condition(name: str, reason: str, message: str, moment: str) -> dict[str, str]:
    return {"type": name, "status": "True", "reason": reason, "message": message, "lastTransitionTime": moment}
