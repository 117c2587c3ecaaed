"""Makes the JSON web tokens that Slurm's auth/jwt accepts."""

import base64
import hashlib
import hmac
import json
import time


def slurm_token(key: bytes, user: str, lifespan_seconds: int) -> str:
    """A token for `user`, signed by HS256 as `scontrol token` signs."""
    now = int(time.time())
    head = _part({"alg": "HS256", "typ": "JWT"})
    body = _part({"iat": now, "exp": now + lifespan_seconds, "sun": user})
    signature = hmac.new(key, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{_text(signature)}"


def _part(value: dict[str, object]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
