"""Writing so that nobody ever sees half a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from wsol._files import atomic as atomic


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; NaN becomes null, since JSON has no NaN."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(_plain(value), indent=1, sort_keys=False, allow_nan=False))


def read_json(path: Path) -> Any:
    """The parsed JSON of `path`.

    Raises:
        ValueError: the file is not JSON; the message names it and says what to do.
    """
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); delete it and run again") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


class _NoTwins(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As `SafeLoader`, with the check."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"key {key.value!r} stands twice (line {key.start_mark.line + 1})")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(text: str, option: str) -> dict[str, Any]:
    """What an option of the command line says: JSON text, which starts with a brace, or the name of a JSON or YAML file.

    Args:
        text: as it was typed.
        option: with its dashes, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no mapping in it, or neither JSON nor YAML.
    """
    inline = text.lstrip().startswith("{")
    if not inline and not os.path.isfile(text):
        raise FileNotFoundError(
            f"{option}: no file {text[:300]!r}; name a JSON or YAML file, or write the JSON itself: '{{...}}'"
        )
    try:
        parsed = parse_yaml(text if inline else Path(text).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{option}: neither JSON nor YAML: {text[:80]!r}: {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{option}: expected a mapping, got {type(parsed).__name__}: {text[:80]!r}")
    return parsed


def parse_yaml(text: str) -> Any:
    """YAML (or JSON) text as plain values. Raises `yaml.YAMLError`, also where a key stands twice."""
    return yaml.load(text, _NoTwins)  # a SafeLoader
