"""Public data sets to be fetched: where they are, under which license, and files that go on where a broken download stopped."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wsol._files import atomic

ATTEMPTS = 4
"""Connections per file and call, each going on where the one before broke off."""
TIMEOUT = (20.0, 60.0)
"""Seconds to connect, and without a byte."""
CHUNK = 2**16
"""Bytes written at a time; up to as many are lost where a connection breaks."""


@dataclass(frozen=True)
class Collection:
    """A public data set.

    Attributes:
        license: what a user agrees to.
        cite: the paper to cite.
        mirror: URL of the folder that holds `files`.
        files: paths below `mirror`, and below the user's folder -> checksum ("md5:...", "sha256:..."); "" where we know none.
        listed: the one of `files` that lists MD5 or SHA-256 sums of the others, as `md5sum` writes it; "" if none does.
        use: what to do with them.
    """

    license: str
    cite: str
    mirror: str
    files: Mapping[str, str]
    listed: str = ""
    use: str = ""


COLLECTIONS = {
    "glas": Collection(
        "GlaS (Warwick-QU): for research only, no commercial use; cite the two papers below.",
        "Sirinukunwattana et al., Medical Image Analysis 35 (2017); IEEE Transactions on Medical Imaging 34 (2015)",
        "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/download",
        # As public loaders of the set have it; not checked by ourselves.
        {"warwick_qu_dataset_released_2016_07_08.zip": "md5:495b2a9f3d694545fbec06673fb3f40f"},
        use="prepare: {source: glas-patient, options: {root: FOLDER}}",
    ),
    "cmu-1-small-region": Collection(
        "CMU-1-Small-Region.svs, of OpenSlide's test data: CC0 1.0, public domain.",
        "Goode et al., Journal of Pathology Informatics 4 (2013)",
        "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio",
        {"CMU-1-Small-Region.svs": "sha256:ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"},
        use="a slide of the sample sheet: path FOLDER/CMU-1-Small-Region.svs",
    ),
    "camelyon16-sample": Collection(
        "CAMELYON16: CC0 1.0, public domain. Three slides, some gigabytes each, with the annotations of two.",
        "Ehteshami Bejnordi et al., JAMA 318 (2017); Litjens et al., GigaScience 7 (2018)",
        "https://camelyon-dataset.s3.us-west-2.amazonaws.com/CAMELYON16",
        dict.fromkeys(
            (
                "checksums.md5", "annotations/tumor_001.xml", "annotations/test_001.xml", "images/normal_001.tif",
                "images/tumor_001.tif", "images/test_001.tif",
            ),
            "",
        ),
        listed="checksums.md5",
        use="in the folder FOLDER, as the source camelyon16 (root) knows it; or list the slides in a sample sheet",
    ),
}  # fmt: skip
"""What `wsol fetch` knows, by name."""


def download(
    collection: Collection,
    folder: Path,
    *,
    mirror: str | None = None,
    checksums: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
) -> dict[str, str]:
    """The files of a collection in `folder`: what is there and right stays, what is half there goes on, zips are unpacked.

    What came out of a zip is unpacked again where it is gone, and replaced where the zip is another one; other files stay.

    A file of which no checksum is known gets one on its first download, in `NAME.sha256` beside it, and is held to it later.

    Args:
        collection: what.
        folder: where.
        mirror: URL of another folder with the same files.
        checksums: of some files, instead of ours.
        attempts: connections per file.

    Returns:
        The checksum that each file was held to, or that was recorded.

    Raises:
        ValueError: a mirror that is no URL; a checksum of a file that is not in the collection; a file does not have its checksum
            (it is removed); a zip is none, or would replace files that did not come out of it.
        RuntimeError: the connection broke again and again; what came stays, and the same call goes on from there.
    """
    given = dict(checksums or {})
    if unknown := set(given) - set(collection.files):
        raise ValueError(f"a checksum is given for {sorted(unknown)}; the files are {sorted(collection.files)}")
    base, found = (mirror or collection.mirror).rstrip("/"), {}
    if not base.startswith(("http://", "https://")):
        raise ValueError(
            f"--mirror {mirror!r}: a URL that begins with https:// (or http://) expected, of the folder of the files"
        )
    listed: dict[str, str] = {}
    for name, known in collection.files.items():
        found[name] = _file(f"{base}/{name}", folder / name, given.get(name) or known or listed.get(name, ""), attempts)
        if name == collection.listed:
            listed = _sums(folder / name, list(collection.files))
        if name.endswith(".zip"):
            _unpack(folder / name, found[name])
    return found


def _file(url: str, path: Path, checksum: str, attempts: int) -> str:
    """Fetch one file unless it is there and right; the checksum it was held to, or that was recorded."""
    import pooch

    record = path.with_name(f"{path.name}.sha256")
    recorded = f"sha256:{record.read_text().split()[0]}" if record.is_file() and not checksum else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, checksum or recorded or None, fname=path.name, path=path.parent, downloader=_Resuming(path, attempts))
    except ValueError as error:
        raise ValueError(
            f"{path.name} from {url}: {error} If the publisher changed the file on purpose, give its checksum: --checksum "
            f"{path.name}=sha256:..."
        ) from error
    if checksum or recorded:
        return checksum or recorded
    made = pooch.file_hash(str(path), alg="sha256")
    with atomic(record) as temporary:
        temporary.write_text(f"{made}  {path.name}\n")
    return f"sha256:{made}"


class _Resuming:
    """Downloads for pooch by way of `.NAME.part`, which outlives a broken connection and a killed process.

    Beside it stands what the server called this version of the file (ETag or date): another version begins anew.
    """

    def __init__(self, path: Path, attempts: int) -> None:
        self.part = path.with_name(f".{path.name}.part")
        self.version = path.with_name(f".{path.name}.version.part")
        self.attempts = attempts

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """As pooch calls it: leaves the whole file at `output_file`."""
        import requests

        for attempt in range(self.attempts):
            try:
                self._go_on(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                if attempt + 1 == self.attempts:
                    have = self.part.stat().st_size if self.part.is_file() else 0
                    raise RuntimeError(
                        f"{url}: {error}; {have} bytes are kept in {self.part}: run the same command again to go on from "
                        "there, or give another --mirror"
                    ) from error
            except requests.RequestException as error:  # no such address, too many redirects: the same again and again
                raise RuntimeError(f"{url}: {error}; give another --mirror") from error
        os.replace(self.part, output_file)
        self.version.unlink(missing_ok=True)

    def _go_on(self, url: str) -> None:
        """Fetch what is missing; the whole file where the server has another version, or gives no parts."""
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        version = self.version.read_text() if self.version.is_file() else ""
        headers = {"Range": f"bytes={have}-", "If-Range": version} if have and version else {}
        with requests.get(url, headers={**headers, "Accept-Encoding": "identity"}, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing is missing, or the file is another one
                self.version.unlink(missing_ok=True)
                if answer.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return
                self.part.unlink()
                raise requests.ConnectionError("the file has another length than before")
            if not answer.ok:
                raise RuntimeError(f"{url}: the server answers {answer.status_code} {answer.reason}; give another --mirror")
            goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if answer.status_code == 206 and not goes_on:
                self.version.unlink()
                raise requests.ConnectionError(
                    f"the server sends another part than asked for: {answer.headers.get('Content-Range')}"
                )
            with self.part.open("ab" if goes_on else "wb") as file:
                # After another version is emptied: bytes of two would never be told apart.
                self.version.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)


def _sums(path: Path, names: list[str]) -> dict[str, str]:
    """The sums that a file lists for some of the names, by the last part of each: releases sort them into other folders."""
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines()]
    sums = {PurePosixPath(line[1].strip().lstrip("*")).name: line[0] for line in lines if len(line) == 2}
    kinds = {32: "md5", 64: "sha256"}
    found = {name: sums.get(PurePosixPath(name).name, "") for name in names}
    return {name: f"{kinds[len(one)]}:{one}" for name, one in found.items() if len(one) in kinds}


def _unpack(archive: Path, checksum: str) -> None:
    """Unpacks beside the archive what is not there, or is of another archive; a mark says what came out of which.

    Raises:
        ValueError: it is no zip, or there are other files of the same name, which are left alone.
    """
    folder, mark = archive.parent, archive.with_name(f".{archive.name}.unpacked")
    told, own = _marked(mark)
    same = told == checksum
    if same and all((folder / name).is_file() for name in own):
        return
    beside = archive.with_name(f".{archive.stem}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(beside)
        names = {path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file()}
        there = sorted(name for name in names - own if (folder / name).exists())
        if odd := [name for name in there if not filecmp.cmp(beside / name, folder / name, shallow=False)]:
            raise ValueError(
                f"{archive}: {folder / odd[0]} ({len(odd)} such files) is there, did not come out of this archive and is another "
                "file; move it away, or give another folder with --out"
            )
        _mark(mark, "", own | names)  # a process that dies from here on leaves files which the next one knows for its own
        for name in sorted(names):
            if not (same and (folder / name).is_file()):  # else it may have been worked on
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(beside / name, folder / name)
        for name in own - names:
            (folder / name).unlink(missing_ok=True)
        _mark(mark, checksum, names)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{archive}: no zip archive ({error}); delete it and {archive.name}.sha256, and give another --mirror"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _marked(mark: Path) -> tuple[str, set[str]]:
    """The archive that was unpacked whole, and the files that came out of it or of one before."""
    try:
        told = json.loads(mark.read_text())
        return str(told["archive"]), set(told["names"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", set()


def _mark(mark: Path, checksum: str, names: Iterable[str]) -> None:
    with atomic(mark) as temporary:
        temporary.write_text(json.dumps({"archive": checksum, "names": sorted(names)}))
