"""Tokens: minted, ready, and why they are refused."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from tests.slurm.restd import KEY, SECRET, START, Clock
from tidegate.slurm.errors import MissingKey
from tidegate.slurm.token import TokenSource


def _ready(clock: Clock, seconds: float) -> bytes:
    claims = {"sun": "slurm", "exp": int((clock.now + timedelta(seconds=seconds)).timestamp())}
    return jwt.encode(claims, KEY, algorithm="HS256").encode()


def test_mints_a_token_for_the_user_with_an_expiry() -> None:
    token = TokenSource(SECRET, {"jwt_hs256.key": KEY}, "alice", Clock()).token()
    claims = jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
    assert claims == {"sun": "alice", "iat": int(START.timestamp()), "exp": int(START.timestamp()) + 600}
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_keeps_a_minted_token_and_renews_it_before_its_end() -> None:
    clock = Clock()
    source = TokenSource(SECRET, {"jwt_hs256.key": KEY}, "slurm", clock)
    first = source.token()
    clock.go_on(479)
    assert source.token() == first
    clock.go_on(1)
    assert source.token() != first


def test_uses_a_ready_token_as_it_is() -> None:
    ready = _ready(Clock(), 60)
    assert TokenSource(SECRET, {"token": ready + b"\n"}, "slurm", Clock()).token() == ready.decode()


def test_prefers_the_key() -> None:
    data = {"jwt_hs256.key": KEY, "token": _ready(Clock(), 60)}
    assert TokenSource(SECRET, data, "slurm", Clock()).token() != data["token"].decode()


def test_an_update_takes_effect_at_once() -> None:
    source = TokenSource(SECRET, {"jwt_hs256.key": KEY}, "slurm", Clock())
    source.token()
    other = b"o" * 32
    source.update({"jwt_hs256.key": other})
    jwt.decode(source.token(), other, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})


@pytest.mark.parametrize("data", [{}, {"slurm.key": b"x"}, {"token": b""}, {"jwt_hs256.key": b""}])
def test_a_secret_without_a_key_is_named_with_the_keys_that_would_do(data: dict[str, bytes]) -> None:
    with pytest.raises(
        MissingKey, match=r"Secret tidegate-system/slurm has neither `jwt_hs256.key`.*nor `token`"
    ) as error:
        TokenSource(SECRET, data, "slurm", Clock())
    assert error.value.reason == "MissingKey"


@pytest.mark.parametrize("token", [b"SLURM_JWT=abc", b"two words", b"a.b.c\r\nX-Evil: 1", b"\xff\xfe"])
def test_a_token_that_is_none_is_not_sent(token: bytes) -> None:
    with pytest.raises(MissingKey, match="`token` is no JSON web token") as error:
        TokenSource(SECRET, {"token": token}, "slurm", Clock())
    assert error.value.reason == "InvalidToken"


def test_after_a_useless_update_no_old_token_is_used() -> None:
    source = TokenSource(SECRET, {"jwt_hs256.key": KEY}, "slurm", Clock())
    source.token()
    with pytest.raises(MissingKey):
        source.update({})
    with pytest.raises(MissingKey):
        source.token()


def test_says_which_key_or_token_was_refused_and_why() -> None:
    clock = Clock()
    minted = TokenSource(SECRET, {"jwt_hs256.key": KEY}, "slurm", clock).refused("site")
    expired = TokenSource(SECRET, {"token": _ready(clock, -1)}, "slurm", clock).refused("site")
    wrong = TokenSource(SECRET, {"token": _ready(clock, 60)}, "slurm", clock).refused("site")
    endless = TokenSource(SECRET, {"token": b"a.b.c"}, "slurm", clock).refused("site")
    assert [e.reason for e in (minted, expired, wrong, endless)] == [
        "KeyRefused",
        "TokenExpired",
        "TokenRefused",
        "TokenRefused",
    ]
    assert all("site" in e.message and "Secret tidegate-system/slurm" in e.message for e in (minted, expired, wrong))
    assert "2025-12-31 23:59:59" in expired.message
