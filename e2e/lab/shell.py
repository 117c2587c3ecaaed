"""Runs other programs: argument lists only, output kept, failures told in one sentence."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.lab.errors import LabError


def run(
    args: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> str:
    """Standard output of a program that succeeded. With `log`, what it says on standard error is appended there."""
    command = [str(arg) for arg in args]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise LabError(f"the program {command[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{shlex.join(command[:4])} did not end within {timeout:.0f} s") from None
    if log:
        with log.open("a") as out:
            out.write(f"$ {shlex.join(command)}\n{done.stdout}{done.stderr}")
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        where = f" (all of it in {log})" if log else ""
        raise LabError(
            f"{shlex.join(command)[:200]} failed with {done.returncode}: {' / '.join(said[-3:]) or 'no word'}{where}"
        )
    return done.stdout
