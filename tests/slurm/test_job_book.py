"""Whose record is read again, and that an old record never hides a busy node."""

from __future__ import annotations

from datetime import timedelta

from tests.slurm.restd import START
from tidegate.sharing.snapshot import SlurmNode
from tidegate.slurm.job_book import FRESHEST, OLDEST, JobBook, JobStatus, statuses
from tidegate.slurm.records import JobRecord, JobStateRecord

PENDING = JobStatus(frozenset({"PENDING"}), 1)
RUNNING = JobStatus(frozenset({"RUNNING"}), 0)
COMPLETED = JobStatus(frozenset({"COMPLETED"}), 0)


def _record(job_id: int, state: str, nodes: str = "") -> JobRecord:
    return JobRecord(job_id=job_id, job_state=[state], nodes=nodes)


def _node(name: str, state: str, cpus_used: int = 0) -> SlurmNode:
    return SlurmNode(name=name, states=frozenset({state}), cpus=8, cpus_used=cpus_used)


def _book(*records: JobRecord, nodes: tuple[SlurmNode, ...] = ()) -> JobBook:
    """A book that has seen these jobs on these nodes in an observation before."""
    book = JobBook()
    seen = {r.job_id: JobStatus(frozenset(r.job_state), int("PENDING" in r.job_state)) for r in records}
    book.open(seen)
    book.take_all(records, START, START)
    book.doubts({node.name: node for node in nodes})
    return book


def test_new_and_changed_jobs_are_read() -> None:
    book = _book(_record(1, "PENDING"), _record(2, "RUNNING", "a"), _record(3, "PENDING"))
    assert book.open({1: RUNNING, 2: RUNNING, 3: PENDING, 4: PENDING}) == {1, 4}


def test_ended_jobs_are_dropped_without_being_read() -> None:
    book = _book(_record(1, "RUNNING", "a"))
    assert book.open({1: COMPLETED, 2: COMPLETED}) == set()
    assert book.jobs == {}


def test_a_job_that_slurm_no_longer_lists_is_gone() -> None:
    book = _book(_record(1, "RUNNING", "a"))
    book.open({})
    assert book.jobs == {}


def test_a_wanted_job_without_a_record_is_gone() -> None:
    book = _book(_record(1, "PENDING"))
    wanted = book.open({1: RUNNING})
    book.take(wanted, [])
    assert book.jobs == {}


def test_a_record_that_says_more_than_the_light_list_counts() -> None:
    book = JobBook()
    wanted = book.open({1: PENDING, 2: RUNNING})
    book.take(wanted, [_record(1, "RUNNING", "a"), _record(2, "COMPLETED", "b")])
    assert set(book.jobs) == {1}
    assert book.jobs[1].nodes == ("a",)


def test_an_array_is_counted_by_the_light_list_without_being_read() -> None:
    def light(tasks: int) -> dict[int, JobStatus]:
        return statuses(JobStateRecord(f"7_{task}", ["PENDING"]) for task in range(tasks))

    book = JobBook()
    book.take(book.open(light(1000)), [_record(7, "PENDING")])
    assert book.jobs[7].array_tasks == 1000
    assert book.open(light(990)) == set()
    assert book.jobs[7].array_tasks == 990


def test_started_tasks_are_listed_by_their_own_id() -> None:
    seen = statuses(
        [JobStateRecord("9_0", ["RUNNING"]), JobStateRecord("8_1", ["PENDING"]), JobStateRecord("8_2", ["PENDING"])]
    )
    assert seen == {9: RUNNING, 8: JobStatus(frozenset({"PENDING"}), 2)}


# -- an old record never hides that a node is busy ----------------------------------------------------------------


def test_without_a_change_nothing_is_doubted() -> None:
    nodes = (_node("a", "MIXED", 2), _node("b", "IDLE"))
    book = _book(_record(1, "RUNNING", "a"), nodes=nodes)
    assert book.open({1: RUNNING}) == set()
    assert book.doubts({node.name: node for node in nodes}) == (set(), False)


def test_a_job_that_moved_is_doubted_because_its_old_node_is_idle() -> None:
    book = _book(_record(1, "RUNNING", "a"), nodes=(_node("a", "MIXED", 2), _node("b", "IDLE")))
    book.open({1: RUNNING})
    assert book.doubts({"a": _node("a", "IDLE"), "b": _node("b", "MIXED", 2)}) == ({1}, True)


def test_a_job_that_left_a_shared_node_is_doubted_because_the_allocation_changed() -> None:
    jobs = (_record(1, "RUNNING", "a"), _record(2, "RUNNING", "a"))
    book = _book(*jobs, nodes=(_node("a", "MIXED", 4), _node("b", "IDLE")))
    book.open({1: RUNNING, 2: RUNNING})
    doubtful, unexplained = book.doubts({"a": _node("a", "MIXED", 2), "b": _node("b", "MIXED", 2)})
    assert (doubtful, unexplained) == ({1, 2}, True)


def test_a_job_on_a_node_that_is_gone_is_doubted() -> None:
    book = _book(_record(1, "RUNNING", "a"), nodes=(_node("a", "MIXED", 2),))
    book.open({1: RUNNING})
    assert book.doubts({}) == ({1}, False)


def test_a_busy_node_without_a_known_job_is_noticed() -> None:
    book = _book()
    book.open({})
    assert book.doubts({"a": _node("a", "COMPLETING")}) == (set(), True)


def test_what_was_just_read_is_not_doubted() -> None:
    book = _book(_record(1, "PENDING"), nodes=(_node("a", "IDLE"),))
    book.take(book.open({1: RUNNING}), [_record(1, "RUNNING", "a")])
    assert book.doubts({"a": _node("a", "MIXED", 2)}) == (set(), False)


# -- when the full list is worth its cost -------------------------------------------------------------------------


def test_the_first_list_is_a_full_one() -> None:
    assert JobBook().wants_full_list((), START)


def test_a_full_list_is_taken_as_often_as_its_cost_lets_it() -> None:
    for cost, pause in ((0.0, FRESHEST), (0.5, timedelta(seconds=10)), (5.0, timedelta(seconds=100)), (60.0, OLDEST)):
        book = JobBook()
        end = START + timedelta(seconds=cost)
        book.open({})
        book.take_all([], START, end)
        assert not book.wants_full_list((), end + pause - timedelta(seconds=0.1))
        assert book.wants_full_list((), end + pause)


def test_many_changes_are_cheaper_in_one_list() -> None:
    light = dict.fromkeys(range(10000), PENDING)
    book = _book(*(_record(job_id, "PENDING") for job_id in light))
    assert book.open(light) == set()
    assert not book.wants_full_list(range(100), START)
    assert book.wants_full_list(range(2000), START)
