"""Node names in Slurm's short form."""

from __future__ import annotations

import pytest

from tidegate.slurm.hostlist import expand


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("", ()),
        ("gpu1", ("gpu1",)),
        ("gpu1,gpu7", ("gpu1", "gpu7")),
        ("gpu[1-3]", ("gpu1", "gpu2", "gpu3")),
        ("gpu[1-2,5]", ("gpu1", "gpu2", "gpu5")),
        ("gpu[08-11]", ("gpu08", "gpu09", "gpu10", "gpu11")),
        ("a[1-2],b3", ("a1", "a2", "b3")),
        ("rack[1-2]-node[1-2]", ("rack1-node1", "rack1-node2", "rack2-node1", "rack2-node2")),
        ("node[1-2].site.example", ("node1.site.example", "node2.site.example")),
        ("10-0-0-1", ("10-0-0-1",)),
    ],
)
def test_expands(short: str, names: tuple[str, ...]) -> None:
    assert expand(short) == names


@pytest.mark.parametrize(
    "broken", ["gpu[1-3", "gpu1-3]", "gpu[a-b]", "gpu[3-1]", "gpu[1-]", "gpu[[1]]", "gpu[1-999999]"]
)
def test_refuses_what_it_cannot_read(broken: str) -> None:
    with pytest.raises(ValueError, match="node"):
        expand(broken)
