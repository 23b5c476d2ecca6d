"""Which generated tasks are kin, and which serve as sources and targets of the demonstration study.

Written before any ranking by prompts was measured against it; the reasons stand in docs/builtin-tasks.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from softprompt.tasks.generated.data import data_of, frozen

_DATA = data_of("kinship")

#: Families: tasks that need one skill. Two tasks are kin where a family holds both.
FAMILIES: Mapping[str, tuple[str, ...]] = frozen(_DATA["FAMILIES"])

#: Task -> its kin, itself left out.
KINSHIP: Mapping[str, frozenset[str]] = {
    name: frozenset(members) - {name} for members in FAMILIES.values() for name in members
}

#: High-resource tasks whose prompts make a library. Some are decoys for a target: they share its words, not its skill.
DEMO_SOURCES: tuple[str, ...] = frozen(_DATA["DEMO_SOURCES"])
#: Low-resource tasks to transfer to; each has kin among the sources.
DEMO_TARGETS: tuple[str, ...] = frozen(_DATA["DEMO_TARGETS"])
#: Target -> the source that shares most of its words without being kin.
DECOYS: Mapping[str, str] = frozen(_DATA["DECOYS"])
