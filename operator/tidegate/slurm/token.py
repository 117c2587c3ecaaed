"""Who we are to Slurm: a short-lived token minted from the key of auth/jwt, or a ready token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import jwt

from tidegate.slurm.errors import MissingKey, TokenRefused

KEY = "jwt_hs256.key"
READY_TOKEN = "token"  # noqa: S105 - the key in the Secret, not a token
LIFETIME = timedelta(seconds=600)
RENEW_AFTER = LIFETIME * 0.8

_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class TokenSource:
    """Makes tokens from the data of a Secret, with the key `jwt_hs256.key` or `token`; the first is preferred.

    `secret` names the Secret in messages; `user` is whom tokens are minted for. Raises MissingKey for data of no use.
    """

    def __init__(self, secret: str, data: Mapping[str, bytes], user: str, clock: Callable[[], datetime]) -> None:
        self._secret = secret
        self._user = user
        self._clock = clock
        self.update(data)

    def update(self, data: Mapping[str, bytes]) -> None:
        """Take the new content of the Secret. Raises MissingKey and keeps nothing when it is of no use."""
        self._key, self._ready, self._minted = b"", "", ""
        self._renew_at = self._clock()
        if data.get(KEY):
            self._key = data[KEY]
        elif data.get(READY_TOKEN):
            self._ready = data[READY_TOKEN].decode("ascii", "replace").strip()
            if not _TOKEN.fullmatch(self._ready):
                raise MissingKey(
                    "InvalidToken",
                    f"Secret {self._secret}: `{READY_TOKEN}` is no JSON web token; "
                    "put in what `scontrol token` prints after `SLURM_JWT=`",
                )
        else:
            raise MissingKey(
                "MissingKey",
                f"Secret {self._secret} has neither `{KEY}` (the key of auth/jwt) nor `{READY_TOKEN}` (a ready token); "
                "add one of them",
            )

    def token(self) -> str:
        """A token that is good now. A minted one is renewed well before its end."""
        if self._ready:
            return self._ready
        if not self._key:
            raise MissingKey("MissingKey", f"Secret {self._secret} holds nothing to make a token from")
        now = self._clock()
        if not self._minted or now >= self._renew_at:
            claims = {"iat": int(now.timestamp()), "exp": int((now + LIFETIME).timestamp()), "sun": self._user}
            self._minted = jwt.encode(claims, self._key, algorithm="HS256")
            self._renew_at = now + RENEW_AFTER
        return self._minted

    def refused(self, cluster: str) -> TokenRefused:
        """What to say when Slurm does not accept the token: which of the possible causes it is, and the way out."""
        if not self._ready:
            return TokenRefused(
                "KeyRefused",
                f"Slurm cluster {cluster} refuses tokens minted from `{KEY}` of Secret {self._secret}: it is not the "
                "key that slurmctld has, or the clocks differ by minutes; copy the key again, or correct the clocks",
            )
        expiry = self._expiry()
        if expiry and expiry <= self._clock():
            return TokenRefused(
                "TokenExpired",
                f"Slurm cluster {cluster} refuses `{READY_TOKEN}` of Secret {self._secret}: it expired at "
                f"{expiry:%Y-%m-%d %H:%M:%S} UTC; put in a new one, or `{KEY}`, from which tokens are made as needed",
            )
        return TokenRefused(
            "TokenRefused",
            f"Slurm cluster {cluster} refuses `{READY_TOKEN}` of Secret {self._secret} though it has not expired: it "
            "was made for another cluster or with an old key; put in a new one from `scontrol token`",
        )

    def _expiry(self) -> datetime | None:
        """When the ready token ends, by its own word: only slurmctld can verify it."""
        try:
            claims = jwt.decode(self._ready, options={"verify_signature": False})
            return datetime.fromtimestamp(float(claims["exp"]), UTC)
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError):
            return None
