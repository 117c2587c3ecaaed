"""What an engine adds to the packet filter is taken away again, and nothing else."""

from e2e.lab.host_settings import parse_rules, undo_rules

BEFORE = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [7:420]
:OUTPUT ACCEPT [0:0]
:MINE - [0:0]
-A INPUT -j MINE
-A MINE -s 10.0.0.0/8 -j DROP
COMMIT
"""

NOW = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.28.1.0/24 ! -o tglab00000001 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:MINE - [0:0]
:LATER - [0:0]
-A INPUT -j MINE
-A INPUT -j LATER
-A FORWARD -j DOCKER
-A MINE -s 10.0.0.0/8 -j DROP
COMMIT
"""


def ours(rule: str) -> bool:
    return "DOCKER" in rule or "tglab" in rule


def test_nothing_to_undo() -> None:
    assert undo_rules(BEFORE, BEFORE, ours) == ""


def test_our_rules_chains_and_policies_go() -> None:
    tables = {part.splitlines()[0]: part.splitlines()[1:] for part in undo_rules(BEFORE, NOW, ours).split("*")[1:]}
    assert tables["nat"] == [
        "-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-D POSTROUTING -s 172.28.1.0/24 ! -o tglab00000001 -j MASQUERADE",
        "-F DOCKER",
        "-X DOCKER",
        "COMMIT",
    ]
    assert tables["filter"] == [":FORWARD ACCEPT [0:0]", "-D FORWARD -j DOCKER", "-F DOCKER", "-X DOCKER", "COMMIT"]


def test_a_drop_policy_that_was_there_stays() -> None:
    assert undo_rules(NOW, NOW, ours) == ""


def test_rules_that_others_added_meanwhile_stay() -> None:
    assert "LATER" not in undo_rules(BEFORE, NOW, ours)


def test_the_same_rule_twice_is_two_rules() -> None:
    once = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j DOCKER\nCOMMIT\n"
    twice = once.replace("COMMIT", "-A OUTPUT -j DOCKER\nCOMMIT")
    assert undo_rules(once, twice, ours).count("-D OUTPUT") == 1
    assert parse_rules(twice)["nat"][1] == ["-A OUTPUT -j DOCKER"] * 2
