"""Which classes a conversion keeps, in which order, and which become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.annotations.checks import class_name
from utils.annotations.record import AnnotatedSet, Category
from utils.annotations.report import Report
from utils.errors import DatasetError, did_you_mean
from utils.yaml_io import yaml_load


@dataclass(frozen=True)
class ClassMap:
    """New names of old classes.

    Attributes:
        targets: old name to new name, or to None where the class is dropped; so are classes that are not named.
        order: the new names.
        origin: where this was said, for messages.
    """

    targets: Mapping[str, str | None]
    order: Sequence[str]
    origin: str


def read_class_map(text: str) -> ClassMap:
    """Read what ``--classes`` says.

    Args:
        text: names in order, separated by commas; or the path of a YAML file of lines ``old name: new name``, where
            ``null`` drops a class and two lines with one new name merge two classes.

    Raises:
        DatasetError: when a name comes twice, is none, or the file is no such mapping.
        ConfigError: when the file cannot be read.
    """
    if not text.lower().endswith((".yaml", ".yml")):
        names = [name.strip() for name in text.split(",") if name.strip()]
        if not names or len(set(names)) < len(names):
            raise DatasetError(f"--classes {text}: expected different names, separated by commas")
        return ClassMap({name: name for name in names}, names, "--classes")
    targets: dict[str, str | None] = {}
    for old, new in yaml_load(Path(text)).items():
        try:
            targets[class_name(old)] = None if new is None else class_name(new)
        except ValueError as error:
            raise DatasetError(f"{text}: `{old}: {new}`: {error}; put it into quotes") from None
    order = list(dict.fromkeys(new for new in targets.values() if new is not None))
    if not order:
        raise DatasetError(f"{text}: keeps no class; expected lines `old name: new name`")
    return ClassMap(targets, order, text)


def apply_class_map(content: AnnotatedSet, class_map: ClassMap, report: Report) -> AnnotatedSet:
    """Rename, merge and drop; images stay, also those without any object left. Nothing is changed in place."""
    present = set(content.names)
    for name in class_map.targets:
        if name not in present:
            where = "; ".join(filter(None, (name, did_you_mean(name, present))))
            report.add(f"classes of {class_map.origin} that the source does not have", where)
    dropped: Counter[str] = Counter()
    images = []
    for image in content.images:
        kept = []
        for one in image.annotations:
            target = class_map.targets.get(one.category)
            if target is None:
                dropped[one.category] += 1
            else:
                kept.append(replace(one, category=target))
        images.append(replace(image, annotations=tuple(kept)))
    for name, count in dropped.items():
        report.add("objects of classes that are not kept: left out", f"{name}: {count}", count)
    return AnnotatedSet(images, [_new_category(name, content, class_map) for name in class_map.order])


def _new_category(name: str, content: AnnotatedSet, class_map: ClassMap) -> Category:
    """With the number of the first class that becomes it."""
    for old in content.categories:
        if class_map.targets.get(old.name) == name:
            return replace(old, name=name)
    return Category(name)
