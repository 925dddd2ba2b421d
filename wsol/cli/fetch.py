"""`wsol fetch`: a public data set, its license shown before a byte is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from wsol._names import closest


def fetch(
    name: str,
    *,
    out: Path,
    accept_license: bool,
    ask: Callable[[str], bool],
    say: Callable[[str], None],
    mirror: str | None = None,
    checksums: Sequence[str] = (),
) -> None:
    """Fetch a data set into `out`.

    Args:
        name: of `wsol.data.COLLECTIONS`.
        out: folder.
        accept_license: whether the user agreed beforehand.
        ask: a question to the user, after the license was said.
        say: a line to the user.
        mirror: URL of another folder with the same files.
        checksums: NAME=ALGORITHM:HEX, of files whose checksum we do not know or that were changed by their publisher.

    Raises:
        ValueError: an unknown name, a checksum that is none, a file that does not have its checksum.
        RuntimeError: the license was not accepted, or the connection broke.
    """
    from wsol.data import COLLECTIONS, download

    if name not in COLLECTIONS:
        raise ValueError(closest("data set", name, COLLECTIONS))
    given = dict(_checksum(text) for text in checksums)
    wanted = COLLECTIONS[name]
    say(f"{wanted.license}\nPlease cite: {wanted.cite}")
    if not accept_license and not ask("Do you accept this license?"):
        raise RuntimeError("the license was not accepted, and nothing was fetched; in scripts, accept it with --accept-license")
    found = download(wanted, out, mirror=mirror, checksums=given)
    for file, checksum in found.items():
        known = given.get(file) or wanted.files[file] or (wanted.listed and checksum.startswith("md5:"))
        say(f"{out / file}: {'has' if known else 'no published checksum is known; recorded'} {checksum}")
    say(wanted.use.replace("FOLDER", str(out)))


def _checksum(text: str) -> tuple[str, str]:
    name, _, checksum = text.partition("=")
    algorithm, _, digits = checksum.partition(":")
    if algorithm not in ("md5", "sha1", "sha256", "sha512") or not digits or set(digits.lower()) - set("0123456789abcdef"):
        raise ValueError(f"--checksum {text!r}: expected NAME=sha256:HEX (or md5, sha1, sha512)")
    return name, checksum.lower()
