"""Names that are made from the name of a node."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api.names import loan_name, slurm_node_name

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,80}[a-z0-9])?", fullmatch=True)
NODE_NAMES = st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: len(name) <= 253)


@pytest.mark.parametrize(
    ("node", "name"),
    [("gpu-7", "gpu-7-3"), ("gpu-7.site.example", "gpu-7.site.example-3"), ("g" * 54, "g" * 54 + "-3")],
)
def test_a_loan_is_called_after_its_node_and_number(node: str, name: str) -> None:
    assert loan_name(node, 3) == name


@given(NODE_NAMES, st.integers(1, 10**6))
def test_a_loans_name_is_a_label_value_even_with_slurmd_before_it(node: str, number: int) -> None:
    name = f"slurmd-{loan_name(node, number)}"
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name)
    assert not re.search(r"\.[.-]|-\.", name) or re.search(r"\.[.-]|-\.", node)
    assert name.endswith(f"-{number}")


def test_long_names_that_differ_late_stay_two() -> None:
    common = "ip-10-0-0-1.very-long-region-name.compute.internal.example."
    assert loan_name(common + "a", 1) != loan_name(common + "b", 1)
    assert slurm_node_name("n" * 80 + "a") != slurm_node_name("n" * 80 + "b")


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("gpu-7", "gpu-7"),
        ("gpu-7.site.example", "gpu-7"),
        ("10.0.0.7", "node-10-0-0-7"),
        ("7", "node-7"),
        ("7a.site", "7a"),
    ],
)
def test_slurm_knows_a_node_by_the_first_label_of_its_name(node: str, name: str) -> None:
    assert slurm_node_name(node) == name


@given(NODE_NAMES)
def test_slurm_can_take_the_name_of_any_node(node: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", slurm_node_name(node))
    assert len(slurm_node_name(node)) <= 63
