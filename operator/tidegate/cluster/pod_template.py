"""A person's pod template laid under a pod of ours: it may add, and repeat what we say, but not contradict it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

# Lists whose entries are told apart by a field, as Kubernetes itself merges them.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "env": "name",
}


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The template, with where a person finds it. Each method raises `ValueError`, one sentence with object and field.

    `container` is the name of ours; what the template says of it is merged with what we say.
    """

    subject: str
    """Such as `BatchPool idle-gpus`."""
    path: str
    """Such as `spec.slurmd.template`."""
    given: Json
    container: str

    def check(self, not_for_templates: Iterable[str]) -> None:
        """Whether it is a pod template that leaves those fields of the spec to us."""
        self._only(self.given, "", ("metadata", "spec"))
        self._only(self.given.get("metadata", {}), "metadata", ("labels", "annotations"))
        spec = self.given.get("spec", {})
        self.need(isinstance(spec, dict), "spec", "must be an object")
        for field in not_for_templates:
            self.need(field not in spec, f"spec.{field}", "is not for templates, Tidegate decides it; leave it out")
        for field in ("containers", "initContainers", "volumes"):
            self._need_keys(spec.get(field, []), f"spec.{field}", _MERGE_KEYS[field])
        for container in spec.get("containers", []):
            if container["name"] == self.container:
                for field in ("volumeMounts", "env"):
                    where = f"spec.containers[{self.container}].{field}"
                    self._need_keys(container.get(field, []), where, _MERGE_KEYS[field])

    def under(self, ours: Json) -> Json:
        """Our pod (or pod template) with what this one adds."""
        whole: Json = self._under(self.given, ours, "")
        return whole

    def need(self, fine: bool, path: str, problem: str) -> None:
        """Raise the sentence for a field unless it is fine."""
        if not fine:
            where = f"{self.path}.{path}" if path else self.path
            raise ValueError(f"{self.subject}: {where} {problem}.")

    def _under(self, under: Any, ours: Any, path: str) -> Any:
        if isinstance(under, dict) and isinstance(ours, dict):
            merged = dict(ours)
            for key, value in under.items():
                merged[key] = self._under(value, ours[key], f"{path}.{key}") if key in ours else value
            return merged
        merge_key = _MERGE_KEYS.get(path.rpartition(".")[2])
        if isinstance(under, list) and isinstance(ours, list) and merge_key:
            theirs = {entry[merge_key]: entry for entry in under}
            merged_entries = [
                self._under(theirs.pop(entry[merge_key], {}), entry, f"{path}[{entry[merge_key]}]") for entry in ours
            ]
            return [*merged_entries, *theirs.values()]
        self.need(under == ours, path[1:], f"is Tidegate's own ({ours!r}); leave it out")
        return ours

    def _only(self, part: Any, path: str, known: tuple[str, ...]) -> None:
        self.need(isinstance(part, dict), path, "must be an object")
        for field in part:
            where = f"{path}.{field}" if path else field
            self.need(field in known, where, f"is not read; a template has {' and '.join(known)} here")

    def _need_keys(self, entries: Any, path: str, key: str) -> None:
        fine = isinstance(entries, list) and all(isinstance(entry, Mapping) and entry.get(key) for entry in entries)
        self.need(fine, path, f"must be a list whose entries each have `{key}`")
