"""Latent groups in sentences: `group 3`, `groups 0-4 and 7`; counted from 0, the coarsest."""

from collections.abc import Sequence


def named_groups(groups: Sequence[int]) -> str:
    """Ascending numbers as words; neighbours are drawn together."""
    runs: list[list[int]] = []
    for group in groups:
        if runs and group == runs[-1][-1] + 1:
            runs[-1].append(group)
        else:
            runs.append([group])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"group{'s' if len(groups) > 1 else ''} {listed}"
