"""Critics from installed packages, by the names of their entry points; never code out of a bundle."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from ltm_edge.loop.critics.critic import Critic

__all__ = ["GROUP", "load_plugins"]

GROUP = "ltm_edge.critics"


def load_plugins(names: Iterable[str]) -> tuple[tuple[Critic, ...], tuple[str, ...]]:
    """The critics behind the names, and a sentence for each that can't be had.

    An entry point names a critic, or a class or function that makes one without arguments. A name that no installed
    package has is no error: a bundle may come from where there was one.
    """
    critics: list[Critic] = []
    notices = []
    for name in dict.fromkeys(names):
        found = list(entry_points(group=GROUP, name=name))
        if not found:
            notices.append(f"critic {name}: no installed package has it (entry points, group {GROUP}); left out")
            continue
        try:
            loaded: Any = found[0].load()
            critic = loaded if hasattr(loaded, "judge") and not isinstance(loaded, type) else loaded()
            if not callable(getattr(critic, "judge", None)) or not isinstance(getattr(critic, "name", None), str):
                raise TypeError("it has no name or no judge(exhibit)")
        except Exception as error:  # whatever someone else's package does, the session goes on
            notices.append(
                f"critic {name}: {found[0].value} can't be loaded: {type(error).__name__}: {error}; left out"
            )
            continue
        critics.append(critic)
    return tuple(critics), tuple(notices)
