from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol.data.downloads import Collection
from wsol.data.manifest import Dataset, masks_table, samples_table


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def picture(tmp_path):
    """Writes a random RGB image, or a given array, below the temporary folder; returns its path."""

    def write(name, array=None, shape=(20, 30)):
        if array is None:
            array = np.random.default_rng(sum(name.encode())).integers(0, 256, (*shape, 3), np.uint8)
        return save(tmp_path / name, array)

    return write


@pytest.fixture
def dataset():
    """A small consistent dataset: two patients train, one validates (one sample valpx), one tests."""

    def build(**changes):
        rows = []
        for i, (patient, role) in enumerate(
            [("a", "train"), ("a", "train"), ("b", "valcl"), ("b", "valcl"), ("c", "test"), ("c", "test")]
        ):
            rows.append(
                {
                    "sample": f"s{i}",
                    "slide": f"s{i}",
                    "patient": patient,
                    "path": f"s{i}.png",
                    "mpp": 0.5,
                    "label": i % 2,
                    "fold": 0,
                    "role": role,
                }
            )
        rows.append({**rows[3], "role": "valpx"})
        masks = [
            {"sample": "s3", "mask": "s3_mask.png", "kind": "file", "values": [2, 5]},
            {"sample": "s4", "mask": "", "kind": "empty", "values": []},
        ]
        facts = {
            "name": "toy",
            "kind": "images",
            "task": "binary",
            "classes": ["normal", "tumor"],
            "positive": ["tumor"],
            "mask_means": "class",
            "split_unit": "patient",
            "samples": samples_table(rows),
            "masks": masks_table(masks),
            "source": "here",
            "note": "a note",
        }
        return Dataset(**{**facts, **changes})

    return build


@pytest.fixture
def rows():
    """Manifest rows of image files: label i % 2 unless given."""

    def build(paths, labels=None):
        labels = [i % 2 for i in range(len(paths))] if labels is None else labels
        return pd.DataFrame(
            {"sample": [f"s{i}" for i in range(len(paths))], "path": [str(p) for p in paths], "label": labels, "mpp": 0.5}
        )

    return build


class Server(ThreadingHTTPServer):
    """Serves `files`; `cuts` are lengths after which the next answers break off; `asked` are (path, Range) in order.

    `stalls`: seconds of silence where an answer breaks off; `pause`: between eighths of an answer; `shift`: of parts, in bytes.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.asked, self.ranges = {}, [], [], True
        self.stalls, self.pause, self.shift = 0.0, 0.0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/files"

    def offers(self, checksum="", name="one.bin", **more):
        """A collection of one file."""
        return Collection("free", "nobody", self.url, {name: checksum}, **more)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        data = server.files.get(self.path.removeprefix("/files/"))
        if data is None:
            self.send_error(404)
            return
        tag, start = f'"{hashlib.md5(data).hexdigest()}"', 0
        if server.ranges and self.headers.get("Range") and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) + server.shift
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        breaks = bool(server.cuts)
        end = start + server.cuts.pop(0) if breaks else len(data)
        for at in range(start, end, len(data) // 8 + 1):
            self.wfile.write(data[at : min(end, at + len(data) // 8 + 1)])
            time.sleep(server.pause)
        time.sleep(server.stalls if breaks else 0)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
