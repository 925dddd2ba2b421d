"""What ran, from what, with what result: provenance of files, flat run records, and their mirror in MLflow.

Plain files stay the truth. `records` turns score files into flat runs, `mirror` copies those into MLflow as often as one likes
without doubling them; nothing else in the package knows MLflow. Importing the room imports neither MLflow nor git.
"""

from __future__ import annotations

from wsol._names import lazy

_WHERE = {
    "code_version": "origin",
    "config_hash": "origin",
    "file_hash": "origin",
    "provenance": "origin",
    "Record": "record",
    "Picture": "record",
    "records": "runs",
    "read_history": "runs",
    "run_key": "record",
    "init": "mirror",
    "log": "mirror",
    "Logged": "mirror",
    "links": "dashboard",
    "check_uri": "address",
    "TrackingError": "server",
}

__all__ = [*_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
