"""Cached things are found by what they are made from."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e.lab.archives import Entry, archive, folder_entries
from e2e.lab.paths import content_key, only_maker
from e2e.lab.tools import Family


def test_a_key_changes_with_every_part(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    keys = [content_key("x", b"y", tmp_path)]
    (tmp_path / "a").write_text("2")
    keys.append(content_key("x", b"y", tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    keys.append(content_key("x", b"y", tmp_path))
    keys += [content_key("xy", tmp_path), content_key("x", "y", tmp_path, "")]
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_depend_on_the_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("same")
    assert content_key(tmp_path / "one") == content_key(tmp_path / "two")


def test_flags_are_part_of_a_tool_family() -> None:
    plain, tagged, other = Family("kind"), Family("kind", tags="x"), Family("kind", packages="./...")
    assert len({plain.folder, tagged.folder, other.folder}) == 3


def test_an_archive_is_the_same_for_the_same_entries(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 100)
    entries = {"etc/key": Entry(b"secret", 0o600, 64030), "usr/big": Entry(tmp_path / "big", 0o755)}
    with archive(entries) as first, archive(dict(reversed(entries.items()))) as second:
        assert first.read() == second.read()
        first.seek(0)
        with tarfile.open(fileobj=first) as tar:
            key, big = tar.getmember("etc/key"), tar.getmember("usr/big")
    assert (key.mode, key.uid, big.mode, big.size) == (0o600, 64030, 0o755, 100)


def test_a_folder_keeps_its_execute_bits(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "read").write_text("")
    assert {name: entry.mode for name, entry in folder_entries(tmp_path, "bin/").items()} == {
        "bin/run": 0o755,
        "bin/read": 0o644,
    }


def test_a_thing_is_made_by_one_maker_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "thing"
    made = []

    def make(maker: int) -> str:
        with only_maker(target):
            if not target.exists():
                made.append(maker)
                target.with_suffix(".unfinished").write_text(str(maker))
                target.with_suffix(".unfinished").rename(target)
            return target.read_text()

    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(make, range(8)))
    assert got == {str(maker) for maker in made}
    assert len(made) == 1
