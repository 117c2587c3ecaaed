"""What the operator knows of the cluster, however late, twice or out of order it is told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import NOW, ago, slurm
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, DEPLOYMENTS, NODE_LOANS, NODES, PODS, PRIORITY_CLASSES
from tidegate.controllers.world import World
from tidegate.sharing.snapshot import Part

Json = dict[str, Any]


def raw_node(name: str = "gpu-1", version: int = 1, uid: str = "", ready: bool = True) -> Json:
    return {
        "metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}], "allocatable": {"cpu": "4"}},
    }


def raw_pod(name: str, version: int = 1, phase: str = "Running") -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-11-21T12:00:00Z",
        },
        "spec": {"containers": [{"name": "c"}], "nodeName": "gpu-1"},
        "status": {"phase": phase},
    }


def is_ready(world: World, name: str = "gpu-1") -> bool:
    ready: bool = world.all(NODES)[name].ready
    return ready


def test_what_is_new_is_news_and_what_is_known_is_not() -> None:
    world = World()
    assert world.put(NODES, raw_node())
    assert not world.put(NODES, raw_node())
    assert world.put(NODES, raw_node(version=2, ready=False))
    assert not is_ready(world)


def test_a_newer_version_is_remembered_whatever_changed_in_it() -> None:
    world = World()
    world.put(NODES, raw_node(version=1))
    assert world.put(NODES, raw_node(version=5) | {"spec": {"podCIDR": "10.0.0.0/24"}}), "patches name the version"
    assert world.all(NODES)["gpu-1"].resource_version == "5"
    assert not world.put(NODES, raw_node(version=4, ready=False)), "older than what is known"
    assert is_ready(world)


@pytest.mark.parametrize("version", [9, 10])
def test_an_own_write_is_not_undone_by_an_older_watch_event(version: int) -> None:
    world = World()
    world.put(NODES, raw_node(version=10))
    assert not world.put(NODES, raw_node(version=version, ready=False))
    assert is_ready(world)


def test_versions_are_numbers_and_not_words() -> None:
    world = World()
    world.put(NODES, raw_node(version=9))
    assert world.put(NODES, raw_node(version=10, ready=False))


def test_what_was_deleted_is_gone_and_late_answers_do_not_bring_it_back() -> None:
    world = World()
    world.put(NODES, raw_node(version=3))
    world.drop(NODES, raw_node(version=4))
    assert world.all(NODES) == {}
    assert not world.put(NODES, raw_node(version=9))
    assert world.all(NODES) == {}


def test_what_only_lost_the_label_by_which_it_is_watched_comes_back_with_it() -> None:
    world = World()
    world.put(DEPLOYMENTS, raw_part(version=3))
    world.drop(DEPLOYMENTS, raw_part(version=4))
    assert not world.put(DEPLOYMENTS, raw_part(version=4))
    assert world.put(DEPLOYMENTS, raw_part(version=5))


def test_a_part_is_as_applied_until_somebody_changes_it() -> None:
    world = World()
    world.put(DEPLOYMENTS, raw_part(version=3))
    assert not part_of(world).as_applied
    # The answer to an apply that changed nothing has the version that is known.
    world.applied(DEPLOYMENTS, raw_part(version=3))
    assert part_of(world).as_applied
    world.put(DEPLOYMENTS, raw_part(version=4))
    assert part_of(world).as_applied, "its status changed, not what it shall be"
    world.put(DEPLOYMENTS, raw_part(version=5, generation=2))
    assert not part_of(world).as_applied


def raw_part(version: int, generation: int = 1) -> Json:
    owner = {"apiVersion": "v1", "kind": "InferenceService", "name": "chat", "uid": "uid-chat", "controller": True}
    metadata = {"name": "chat", "namespace": "team", "uid": "uid-d", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "generation": generation, "ownerReferences": [owner]}, "spec": {}, "status": {}}


def part_of(world: World) -> Part:
    return world.snapshot({}, {}).parts["Deployment team/chat"]


def test_a_new_object_of_the_old_name_is_another() -> None:
    world = World()
    world.put(NODES, raw_node(version=3))
    world.drop(NODES, raw_node(version=4))
    assert world.put(NODES, raw_node(version=5, uid="second"))
    assert world.all(NODES)["gpu-1"].uid == "second"
    world.drop(NODES, raw_node(version=4))
    assert world.all(NODES)["gpu-1"].uid == "second", "the death of the first one, told late"


def test_a_replacement_is_taken_even_if_the_deletion_was_never_told() -> None:
    world = World()
    world.put(NODES, raw_node(version=30))
    assert world.put(NODES, raw_node(version=31, uid="second"))
    assert world.all(NODES)["gpu-1"].uid == "second"


def test_a_full_list_removes_what_vanished_unseen_and_keeps_what_came_after_it() -> None:
    world = World()
    world.put(NODES, raw_node("stays", version=1))
    world.put(NODES, raw_node("vanished", version=2))
    world.put(NODES, raw_node("newer", version=9))
    world.keep_only(NODES, {"uid-stays"}, as_of=5)
    assert set(world.all(NODES)) == {"stays", "newer"}


def test_finished_pods_hold_nothing() -> None:
    world = World()
    world.put(PODS, raw_pod("a"))
    assert list(world.all(PODS)) == ["team/a"]
    assert world.put(PODS, raw_pod("a", version=2, phase="Succeeded"))
    assert world.all(PODS) == {}


def test_an_object_that_cannot_be_read_is_not_there_and_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put(BATCH_POOLS, {"metadata": {"name": "p", "uid": "u", "resourceVersion": "1"}, "spec": {"partition": 7}})
    assert world.all(BATCH_POOLS) == {}
    (record,) = caplog.records
    assert "BatchPool p: field spec." in record.getMessage()


def test_a_snapshot_has_all_kinds() -> None:
    world = World()
    world.put(NODES, raw_node())
    world.put(PODS, raw_pod("a"))
    for name, value, default in (("high", 1000, False), ("usual", 5, True)):
        meta = {"name": name, "uid": name, "resourceVersion": "1"}
        world.put(PRIORITY_CLASSES, {"metadata": meta, "value": value, "globalDefault": default})
    seen = world.snapshot({"slurm": slurm()}, {"gpu-1": ago(5)})
    assert set(seen.nodes) == {"gpu-1"}
    assert [pod.name for pod in seen.pods] == ["a"]
    assert (seen.priority_classes, seen.default_priority_class) == ({"high": 1000, "usual": 5}, "usual")
    assert seen.idle_since == {"gpu-1": ago(5)}
    assert seen.slurm["slurm"].observed == NOW


def test_objects_of_one_name_in_two_namespaces_are_two() -> None:
    world = World()
    meta = {"name": "c", "uid": "u1", "resourceVersion": "1", "creationTimestamp": "2026-11-21T12:00:00Z"}
    for number, namespace in enumerate(("a", "b")):
        body = {"metadata": {**meta, "namespace": namespace, "uid": f"u{number}"}, "spec": {"poolName": "batch"}}
        world.put(CAPACITY_CLAIMS, body)
    assert set(world.all(CAPACITY_CLAIMS)) == {"a/c", "b/c"}
    assert world.all(NODE_LOANS) == {}
