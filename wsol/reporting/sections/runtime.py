"""What the study cost: time and memory of each rule, from the benchmark files of the workflow."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from wsol.reporting.cells import EMPTY, Cell, Column, Grid, Line, Whisker
from wsol.reporting.export import percent

COLUMNS = (
    Column("Jobs", "Jobs that ran, as far as their benchmark files are there"),
    Column("All together", "Wall time of all jobs of the rule, one after the other"),
    Column("Share", "Of the wall time of all rules"),
    Column("Median job", "Wall time"),
    Column("Longest job", "Wall time, and which job it was"),
    Column("Processor time", "All jobs together; more than wall time where several cores worked"),
    Column("Peak memory", "Resident set of the largest job, with its children; and which job it was"),
)

Job = Mapping[str, Any]


def section(jobs: Sequence[Job]) -> dict[str, Any] | None:
    """A line for each rule, the most expensive first; None without jobs.

    Args:
        jobs: ``{"rule", "job", "seconds", "cpu", "memory"}``: wall and processor time in s and the peak resident set in MB; what
            was not measured is None (Snakemake cannot measure a job of less than a second).
    """
    if not jobs:
        return None
    rules: dict[str, list[Job]] = {}
    for job in jobs:
        rules.setdefault(str(job["rule"]), []).append(job)
    total = sum(float(j["seconds"]) for j in jobs)
    ordered = sorted(rules.items(), key=lambda item: -sum(float(j["seconds"]) for j in item[1]))
    largest = max((float(j["memory"]) for j in jobs if j["memory"] is not None), default=None)
    words = f"{len(jobs):,} jobs, {duration(total)} of wall time one after the other" + (
        "" if largest is None else f", at most {memory(largest)} of memory"
    )
    caption = "From the benchmark files of the workflow. A job that was made anew counts as it ran last."
    return {"words": words, "grid": Grid(COLUMNS, [_line(rule, some, total) for rule, some in ordered], caption, first="Rule")}


def _line(rule: str, jobs: Sequence[Job], total: float) -> Line:
    seconds = [float(j["seconds"]) for j in jobs]
    longest = max(jobs, key=lambda j: float(j["seconds"]))
    share = sum(seconds) / total if total else 0.0
    processor = [float(j["cpu"]) for j in jobs if j["cpu"] is not None]
    measured = [j for j in jobs if j["memory"] is not None]
    largest = max(measured, key=lambda j: float(j["memory"])) if measured else None
    return Line(
        rule,
        "",
        [
            Cell(f"{len(jobs):,}", sort=repr(len(jobs))),
            _time(sum(seconds)),
            Cell(percent(share), sort=repr(share), whisker=Whisker(percent(share), "0.0", percent(share))),
            _time(statistics.median(seconds)),
            _time(max(seconds), str(longest["job"]) if len(jobs) > 1 else ""),
            _time(sum(processor)) if processor else EMPTY,
            _memory(largest, len(jobs)),
        ],
    )


def _memory(job: Job | None, count: int) -> Cell:
    """The peak of the largest job, and which of several it was."""
    if job is None:
        return EMPTY
    return Cell(memory(float(job["memory"])), str(job["job"]) if count > 1 else "", repr(float(job["memory"])))


def _time(seconds: float, beside: str = "") -> Cell:
    return Cell(duration(seconds), beside, repr(seconds))


def duration(seconds: float) -> str:
    """Seconds in words: "0.4 s", "75 s", "12 min", "3 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def memory(megabytes: float) -> str:
    """MB in words: "640 MB", "3.1 GB"."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
