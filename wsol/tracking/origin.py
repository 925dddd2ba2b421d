"""Where a result comes from: the code, the settings, the input files, the seed."""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import wsol

_BLOCK = 1 << 20
_BLOCKS = 64
_DIGITS = 16


@functools.cache
def code_version() -> str:
    """The version of the running code, as ``0.1.0``, ``0.1.0+g2c5bfb0b2dad`` (a checkout) or ``0.1.0+g2c5bfb0b2dad.dirty``.

    A checkout is dirty when a file below the package folder differs from the commit or is unknown to it; data and results do not
    count. Where git cannot tell (not installed, another owner) a checkout is ``0.1.0+unknown``. Asked once for each process.
    """
    return version_of(Path(wsol.__file__).parent, wsol.__version__)


def version_of(package: Path, version: str) -> str:
    """`code_version` of any package folder.

    Only a repository whose root directly holds the folder counts: an environment installed inside somebody's study must not be
    taken for that study's commit.
    """
    if not (package.parent / ".git").exists():
        return version
    try:
        commit = _git(package, "rev-parse", "--short=12", "HEAD")
        dirty = _git(package, "status", "--porcelain", "--", ".")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return f"{version}+unknown"
    return f"{version}+g{commit}{'.dirty' if dirty else ''}"


def _git(folder: Path, *words: str) -> str:
    # No optional locks: many jobs ask at once, and none may disturb a commit that is being made.
    done = subprocess.run(["git", "--no-optional-locks", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def canonical(value: Any) -> str:
    """`value` as JSON that does not depend on the order of keys.

    Raises:
        TypeError: something in it is not plain JSON.
        ValueError: NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hex digits of plain JSON settings, independent of the order of keys."""
    return hashlib.blake2b(canonical(config).encode(), digest_size=_DIGITS // 2).hexdigest()


def file_hash(path: str | Path) -> str:
    """16 hex digits of a file's content; at once also for whole slides.

    A file of more than 64 MiB is known by its size and 64 blocks of 1 MiB spread evenly from first to last byte; the digits then
    start with ``s`` for sampled, so that the two kinds are never taken for each other.

    Raises:
        FileNotFoundError: no such file.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    with path.open("rb") as file:
        if size <= _BLOCKS * _BLOCK:
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest()
        digest.update(size.to_bytes(8, "little"))
        for i in range(_BLOCKS):
            file.seek(i * (size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return "s" + digest.hexdigest()[1:]


def provenance(config: Mapping[str, Any], inputs: Mapping[str, str | Path], seed: int | None = None) -> dict[str, Any]:
    """The block that every result file carries.

    Returns:
        ``code`` (version), ``config`` (hash), ``seed``, ``created`` (UTC), ``inputs`` (name -> file hash), and where `wsol` was
        called from a command line ``command``.
    """
    called = {"command": shlex.join(["wsol", *sys.argv[1:]])} if Path(sys.argv[0]).stem == "wsol" else {}
    return {
        "code": code_version(),
        "config": config_hash(config),
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "inputs": {name: file_hash(path) for name, path in sorted(inputs.items())},
        **called,
    }
