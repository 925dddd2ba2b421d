"""Damages slides in seeded ways and looks at them in a process of its own: what it died of, or what each damaged file gave.

Run as a script it is that process: it reads jobs (JSON) from its input and writes one line per damaged file.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

SECONDS, PATIENCE = 10, 300
"""Of the processor, and by the clock, for one damaged file; a hang takes longer."""
MEMORY = 3 * 2**30
"""Address space of the process."""
KINDS = ("cut", "flip", "zero", "swap", "tag", "noise")


def damage(data: bytes, kind: str, seed: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The damaged bytes, and the ranges that were changed; `kind` is one of `KINDS`."""
    rng, size = np.random.default_rng([seed, *kind.encode()]), len(data)
    spoiled = bytearray(data)
    if kind == "cut":
        keep = int(rng.choice([rng.integers(0, min(64, size)), rng.integers(0, size), size - rng.integers(1, 64)]))
        return data[: max(0, keep)], [(max(0, keep), size)]
    if kind == "flip":
        places = rng.integers(0, size, int(rng.choice([1, 3, 30])))
        for place in places.tolist():
            spoiled[place] ^= 1 << int(rng.integers(0, 8))
        return bytes(spoiled), [(p, p + 1) for p in places.tolist()]
    if kind in ("zero", "noise"):
        start, length = int(rng.integers(0, size)), int(rng.choice([4, 64, 1024, size // 8]))
        part = bytes(length) if kind == "zero" else rng.bytes(length)
        spoiled[start : start + length] = part
        return bytes(spoiled[:size]), [(start, min(size, start + length))]
    entries = directory_entries(data)
    if not entries:
        return damage(data, "flip", seed)
    if kind == "swap":  # the values of two tags change places
        one, other = (entries[i] for i in rng.choice(len(entries), 2, replace=len(entries) < 2))
        length = min(one[1], other[1])
        spoiled[one[0] : one[0] + length], spoiled[other[0] : other[0] + length] = (
            data[other[0] : other[0] + length],
            data[one[0] : one[0] + length],
        )
        return bytes(spoiled), [(one[0], one[0] + length), (other[0], other[0] + length)]
    place, length = entries[int(rng.integers(0, len(entries)))]  # tag: one byte of an entry is another
    at = place - 8 + int(rng.integers(0, length + 8)) if place >= 8 else place
    spoiled[at] = int(rng.integers(0, 256))
    return bytes(spoiled), [(at, at + 1)]


def directory_entries(data: bytes) -> list[tuple[int, int]]:
    """(place, length) of the value field of every entry of every directory of a classic TIFF; [] for other files."""
    if data[:4] != b"II*\0":
        return []
    found, offset, seen = [], int.from_bytes(data[4:8], "little"), set()
    while offset and offset not in seen and offset + 2 <= len(data):
        seen.add(offset)
        count = int.from_bytes(data[offset : offset + 2], "little")
        found += [(offset + 2 + 12 * i + 8, 4) for i in range(count)]
        end = offset + 2 + 12 * count
        offset = int.from_bytes(data[end : end + 4], "little")
    return found


def touched(path: Path, ranges: list[tuple[int, int]], side: int, other: bool, size: list[int]) -> set[str]:
    """Boxes of `look` whose pixels nobody can vouch for: in the `ranges` lie their stored bytes, or what says where these are, or
    tables for all of them.

    Args:
        path: the undamaged file.
        ranges: (start, end) that were changed in it.
        side: of a box, which is a stored tile where there are tiles.
        other: the damaged file tells of another size or other levels, so the whole slide is read from elsewhere.
        size: (width, height) of the undamaged slide.
    """

    def hit(start: int, end: int) -> bool:
        return any(a < end and start < b for a, b in ranges)

    names = [f"{x},{y}" for y in range(0, size[1], side) for x in range(0, size[0], side)]
    if path.suffix == ".png":
        return set()
    if path.suffix in (".jpg", ".dcm"):
        return {*names, "all"}
    with tifffile.TiffFile(path) as tiff:
        parts = [list(zip(p.dataoffsets, p.databytecounts, strict=True)) for p in tiff.pages]
        # Another color space of as many samples is as good as the true one, for all that is in the file.
        common = [t for p in tiff.pages for name in ("JPEGTables", "PhotometricInterpretation") if (t := p.tags.get(name))]
        tables = [(t.valueoffset, t.valueoffset + t.valuebytecount) for t in common]
        tiled = tiff.pages.first.is_tiled
        listed = [tiff.pages.first.tags[code] for code in ((324, 325) if tiled else (273, 279))]
        wide = [(tag.valueoffset, tag.valuebytecount // tag.count) for tag in listed]
    spoiled = [
        hit(offset, offset + count) or any(hit(at + i * size, at + (i + 1) * size) for at, size in wide)
        for i, (offset, count) in enumerate(parts[0])
    ]
    if any(hit(*table) for table in tables) or (not tiled and any(spoiled)):
        return {*names, "all"}
    found = {name for name, bad in zip(names, spoiled, strict=False) if bad and tiled}
    # OpenSlide draws the coarse tiles of Aperio's slides anew where fine ones seem to be missing.
    return found | ({"all"} if other or found or any(hit(o, o + c) for part in parts for o, c in part) else set())


def look(path: Path, mpp: float | None, side: int) -> dict:
    """What `open_slide` says of a file, and hashes: of every box of `side` px at level 0, and of all of it at 2 um per px."""
    from hashlib import blake2b

    from wsol.slides import Box, SlideError, open_slide

    def seen(read):
        try:
            pixels = read()
        except SlideError:
            return "SlideError"
        return blake2b(pixels.tobytes(), digest_size=8).hexdigest()

    try:
        with open_slide(path, mpp=mpp) as slide:
            facts = {"size": list(slide.size), "mpp": slide.mpp, "levels": [round(d, 3) for d in slide.downsamples]}
            if slide.size[0] * slide.size[1] > 2**26:
                return {"facts": facts, "boxes": {}}
            corners = [(x, y) for y in range(0, slide.size[1], side) for x in range(0, slide.size[0], side)]
            boxes = {f"{x},{y}": seen(lambda x=x, y=y: slide.read(Box(x, y, side, side), slide.mpp)) for x, y in corners}
            boxes["all"] = seen(lambda: slide.thumbnail(max(2.0, slide.mpp)))
            return {"facts": facts, "boxes": boxes}
    except (SlideError, FileNotFoundError) as error:
        return {"error": str(error)}


def run(jobs: list[dict], timeout: float = 3600) -> tuple[list[dict], str]:
    """What a process of its own finds for each of the jobs (path, mpp, side), in order, and what ended it early, or ""."""
    command = [sys.executable, "-W", "ignore", __file__]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, timeout=timeout)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    said = done.stderr.strip().splitlines()
    return found, "" if done.returncode == 0 else f"exit {done.returncode}: {' | '.join(said[-3:])}"


def main() -> None:
    """One line per job."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for job in json.load(sys.stdin):
        signal.alarm(PATIENCE)  # the default action ends the process: no exception that a library could catch
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        started = time.process_time()
        found = look(Path(job["path"]), job["mpp"], job["side"])
        print(json.dumps({**found, "seconds": time.process_time() - started}), flush=True)


if __name__ == "__main__":
    main()
