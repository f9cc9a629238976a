"""The event binding: `POST /api/v1/events/<namespace>/<service>` starts a run with the overrides of its JSON payload.

The document itself cannot come in by this door. Argo answers 200 to an event that no selector matches, so the selector
is the name of the service alone, and a payload of another shape is refused where a parameter is evaluated: Argo Server
answers that with 500 and the sentence, and starts nothing.
https://github.com/argoproj/argo-workflows/blob/v3.5.15/server/event/dispatch/operation.go (dispatch)
"""

import json

from hera.workflows import models as m

from steps.document.overrides import OVERRIDES, Override
from steps.document.schema import ModelService
from steps.kinds import TRIGGER_LABEL
from workflows.runs.submission import OUTSIDE_REASON, REASON, REASON_CHARACTER, REASON_LENGTH, RUN_ID, RUN_ID_PATTERN

KEYS = (*(override.parameter for override in OVERRIDES), REASON, RUN_ID)
# Through JSON and back, a payload has no Go type that a list or a text could contradict when Argo compiles the
# expression, which it does for every binding of the namespace; an absent key is nil.
_PAYLOAD = "fromJSON(toJSON(payload ?? {}))"
# A JSON number is a double in Go, exact for whole numbers below 2^53. `string` writes an exponent from a million
# on, as Go's `%v` does; that of an `int` has its digits.
_EXACT = "1e15"


def event_spec(service: ModelService) -> m.WorkflowEventBindingSpec:
    return m.WorkflowEventBindingSpec(
        event=m.Event(selector=f"discriminator == {json.dumps(service.name)}"),
        submit=m.Submit(
            # Labels are expressions, too. https://argo-workflows.readthedocs.io/en/latest/events/
            metadata=m.ObjectMeta(name=_run_name(service), labels={TRIGGER_LABEL: '"ci"'}),
            workflow_template_ref=m.WorkflowTemplateRef(name=service.name),
            arguments=m.Arguments(
                parameters=[
                    *(_parameter(override.parameter, _checked(override)) for override in OVERRIDES),
                    _parameter(REASON, _cleaned_reason()),
                ]
            ),
        ),
    )


def _parameter(name: str, expression: str) -> m.Parameter:
    return m.Parameter(name=name, value_from=m.ValueFrom(event=expression))


def _checked(override: Override) -> str:
    """The text of one key, or a refusal."""
    switch = set(override.choices) == {"true", "false"}
    return f"{_text(override.parameter, switch=switch)}\n" + _if_matching(override.parameter, override.pattern, "text")


def _run_name(service: ModelService) -> str:
    """Argo's answer to an event names no run; a caller that sends an id knows the name, and asks twice for one run."""
    named = f'(text == "" ? "" : "{service.name}-" + text)'
    return f"{_text(RUN_ID)}\n" + _if_matching(RUN_ID, RUN_ID_PATTERN, named)


def _cleaned_reason() -> str:
    """A reason is cut and cleaned, never a cause of refusal; unknown keys, which would deploy the document as it is,
    are refused here because this parameter is evaluated for each event.
    """
    lines = (
        f"let unknown = filter(keys({_PAYLOAD}), # not in {json.dumps(KEYS)});",
        f'let value = {_PAYLOAD}["{REASON}"] ?? "";',
        'let text = type(value) == "string" ? value : toJSON(value);',
        f'let words = map(split(text, "")[:{REASON_LENGTH}], # matches "{REASON_CHARACTER}" ? # : "{OUTSIDE_REASON}");',
        'len(unknown) == 0 ? join(words, "") : '
        + _refusal(f'"unknown keys " + join(unknown, ", ") + "; allowed are {", ".join(KEYS)}"'),
    )
    return "\n".join(lines)


def _text(key: str, *, switch: bool = False) -> str:
    """`text`: the value of a key as a text. Whole numbers become their digits; what would change on its way, such as
    1.10, becomes a text that no pattern matches.
    """
    boolean = ' : type(value) == "bool" ? string(value)' if switch else ""
    whole = f'type(value) == "float" && abs(value) < {_EXACT} && value == int(value) ? string(int(value))'
    return (
        f'let value = {_PAYLOAD}["{key}"] ?? "";\n'
        f'let text = type(value) == "string" ? value{boolean} : {whole} : "!" + toJSON(value);'
    )


def _if_matching(key: str, pattern: str, then: str) -> str:
    found = f'"{key}: found " + text + ", expected a text that matches {pattern}"'
    return f'text matches "{pattern}" ? {then} : {_refusal(found)}'


def _refusal(message: str) -> str:
    """expr-lang has no word for an error, so this asks for the number in a sentence: the sentence is in the error.

    https://github.com/expr-lang/expr/blob/v1.17.5/builtin/lib.go (Int)
    """
    return f"string(int({message}))"
