"""What gguf_tools needs of a bundle's YAML: plain data, no aliases, bounded. Schemas are for those who have them."""

from __future__ import annotations

from typing import Any

from gguf_tools.duplicates import repeated
from gguf_tools.printable import printable

__all__ = ["MAX_YAML", "load_yaml"]

MAX_YAML = 1 << 20
_MAX_DEPTH = 32


def load_yaml(raw: bytes) -> Any:
    """The data in a YAML text.

    Raises:
        ValueError: it isn't UTF-8 or YAML, or has aliases, tags, duplicate keys or too many levels; one line.
        ImportError: PyYAML isn't installed.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("has aliases, which aren't allowed")
            peek: Any = self.peek_event
            if getattr(peek(), "tag", None) is not None:
                raise ValueError("has tags, which aren't allowed")
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                raise ValueError(f"is nested deeper than {_MAX_DEPTH} levels")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if (twice := repeated(names)) is not None:
                raise ValueError(f"has the key '{printable(twice, 80)}' twice")
            return super().construct_mapping(node, deep)

    if len(raw) > MAX_YAML:
        raise ValueError(f"has {len(raw)} bytes, {MAX_YAML} allowed")
    try:
        loader = Loader(raw.decode("utf-8-sig"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ValueError(f"isn't UTF-8 (byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"isn't YAML: {printable(error.problem or 'unknown', 120)}{place}") from error
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(f"isn't YAML: {printable(' '.join(str(error).split()), 120)}") from error
