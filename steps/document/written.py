"""The text of a document: YAML without traps, and the place of each field in it."""

from dataclasses import dataclass
from typing import Any

import yaml

from steps.errors import DocumentError

Path = tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """A document as YAML nodes, which know their line and column. `edits` are fields that an override replaced."""

    root: yaml.Node | None
    edits: tuple[Path, ...] = ()

    def place(self, path: Path, *, of_key: bool = False) -> str:
        """Line and column of a value, of its key, or of the last section on the way to it that is written down."""
        edit = next((edit for edit in self.edits if path[: len(edit)] == edit), None)
        if edit:
            return f"override of {'.'.join(edit)}"
        mark = _mark(self.root, path, of_key=of_key)
        return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the document"

    def scalar(self, path: Path) -> str | None:
        """A value as it is written without quotes, such as `yes`; None for every other value."""
        if any(path[: len(edit)] == edit for edit in self.edits):
            return None
        node = self.root
        for part in path:
            node = _child(node, part)[1]
        return node.value if isinstance(node, yaml.ScalarNode) and not node.style else None


def read_yaml(text: str, origin: str) -> tuple[dict[str, Any], Written]:
    """Raises DocumentError for a text that is not one mapping in YAML."""
    loader = _EachKeyOnce(text)
    try:
        node = loader.get_single_node()
        found = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        raise DocumentError(f"{origin} is not YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    if not isinstance(found, dict):
        shown = "nothing" if found is None else "a list" if isinstance(found, list) else repr(found)
        raise DocumentError(f"{origin} holds {shown}, expected one mapping with kind: ModelService")
    return found, Written(node)


class _EachKeyOnce(yaml.SafeLoader):
    """In YAML the last of two equal keys wins, and half a section disappears without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if any(key.value == other.value for other in keys[:index]):
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def _mark(root: yaml.Node | None, path: Path, *, of_key: bool) -> yaml.Mark | None:
    """A section is at its key. A field that is missing is at the section that lacks it."""
    node, mark = root, root.start_mark if root else None
    for depth, part in enumerate(path, start=1):
        key, value = _child(node, part)
        if value is None:
            break
        at_key = isinstance(value, yaml.CollectionNode) or (of_key and depth == len(path))
        mark = key.start_mark if key and at_key else value.start_mark
        node = value
    return mark


def _child(node: yaml.Node | None, part: str) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), (None, None))
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return None, node.value[int(part)]
    return None, None
