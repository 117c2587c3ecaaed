"""What is installed: named once with a reason, locked by hash, and bound to nobody's package index."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.conftest import REPOSITORY

LOCKS = ("requirements.lock", "requirements-operator.lock")
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]


def pins(lock: str) -> dict[str, str]:
    """The locked version of each package."""
    text = (REPOSITORY / lock).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


def wanted(*extras: str) -> set[str]:
    """The packages that pyproject.toml names."""
    named = [*PROJECT["dependencies"], *(d for e in extras for d in PROJECT["optional-dependencies"][e])]
    return {re.split(r"[<>=~ ]", dependency)[0] for dependency in named}


def test_each_dependency_has_its_reason_beside_it() -> None:
    named = re.findall(r'^    "([a-z0-9-]+)[<>=].*?",(.*)$', PYPROJECT, re.MULTILINE)
    assert {name for name, _ in named} == wanted("operator", "dev")
    assert [name for name, reason in named if not re.match(r" +# \S+", reason)] == []


@pytest.mark.parametrize(("lock", "extras"), [(LOCKS[0], ("operator", "dev")), (LOCKS[1], ("operator",))])
def test_locks_have_what_is_named(lock: str, extras: tuple[str, ...]) -> None:
    assert wanted(*extras) <= pins(lock).keys()


def test_the_image_has_the_versions_that_were_tested() -> None:
    assert pins(LOCKS[1]).items() <= pins(LOCKS[0]).items()


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_hashes_and_no_address(lock: str) -> None:
    text = (REPOSITORY / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=sha256:", ""), re.MULTILINE)
    for requirement in re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in requirement, requirement
