# The study: validated once with the package's own schema; every rule gets its slice through `params`.
import json
import os
import re
import shlex
from pathlib import Path

from wsol.cli.config import ConfigError, load_config
from wsol.cli.plan import FLOORS, MAPS, RUN, model_settings, plan, sheet_files, source_options, state
from wsol.training import MASKED, criterion

# Without --configfile the demo runs.
if not config:

    configfile: str(Path(str(workflow.current_basedir)).parents[1] / "configs" / "demo.yaml")


try:
    STUDY = load_config(dict(config))
    PLAN = plan(STUDY)
except (ConfigError, ValueError, OSError) as error:
    raise WorkflowError(f"configuration: {error}")

R = STUDY.results
DATASET = STUDY.prepare.name
# Many small jobs side by side beat one that spins: each uses the threads of its rule.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINT", "true")

NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
# One slide is a job with its files as outputs; of a lot of several slides the stamp is the output, and `wsol each` does the work.
LOTS = PLAN.slides_per_job > 1
UNIT_LOG = "{split}-{lot}" if PLAN.by_slide else "{split}"
FLOOR_RUN = RUN.replace("{model}", FLOORS["model"])
SLIDE = "@slide" if LOTS else "{lot}"
WORKED = SLIDE.replace("{lot}", "{wildcards.lot}")
ONE_SLIDE = f"--slide {WORKED} --tiles {R}/tile/{DATASET}/{WORKED}.parquet" if PLAN.by_slide else ""
TRACKING_URI = STUDY.log.tracking_uri or f"sqlite:///{Path(R).absolute()}/log/mlflow.db"
# A rule's outputs are the same for all its models, and one that trains on the masks of valpx keeps no checkpoint chosen on them.
ON_VALPX = [name for name in STUDY.models if STUDY.kept(name) != STUDY.checkpoints]
# What a sample sheet names: who reads these files is handed their state, so that a changed file reruns just those rules.
FILES = sheet_files(STUDY)
MASKS = state(FILES["mask"])
CUT = PLAN.lots(sorted(PLAN.paths))  # who is tiled with whom


wildcard_constraints:
    dataset=NAME,
    model=NAME,
    checkpoint=NAME,
    set=NAME,
    fold=r"\d+",
    seed=r"\d+",
    split=r"valcl|test",
    part=r"training|valpx|valcl|test",
    lot=r"[^/]+",


def growing(first, slide=0):
    """A resource (MB, minutes) that grows by `first` at each attempt, and for each further slide of a lot it has `slide` more.

    Who retries is the profile, not the rule.
    """
    once = first + slide * (PLAN.slides_per_job - 1)
    return lambda w, attempt: once * attempt


def gpus(device, count=1):
    """GPUs of a job: as many as it has processes where the study says `device: cuda`; `auto` takes what its machine has."""
    return count if device.startswith("cuda") else 0


def settings(**parts):
    """A slice of the study as one JSON argument; a change in it reruns exactly the rules that were handed it."""
    return json.dumps(parts, sort_keys=True)


def run_settings(w):
    return settings(**model_settings(STUDY, w.model), name=w.model)


def set_settings(w):
    return settings(methods=STUDY.methods(w.set), **STUDY.localize.model_dump())


def one_of(names):
    """A wildcard that is one of the names."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def parent_checkpoints(w):
    """The checkpoint of each model that this one is trained from."""
    run = {name: RUN.format(dataset=w.dataset, model=name, fold=w.fold, seed=w.seed) for name in STUDY.models[w.model].parents}
    return [f"{R}/train/{place}/{STUDY.kept(name)[0]}.safetensors" for name, place in run.items()]


def training_masks(w):
    """The masks, only for models that learn from them and checkpoints chosen on some: no other training can open one."""
    wanted = STUDY.models[w.model].strategy in MASKED or any(criterion(c).masks for c in STUDY.kept(w.model))
    return f"{R}/prepare/{DATASET}/masks.parquet" if wanted else []


def training_mb(w, attempt):
    """Memory (MB) of a training: it grows with the pixels of a batch (measured: 2.2 GB for 8 squares of 256 px, 3.7 for 16, 9.7 for 64)."""
    how = STUDY.training(w.model)
    side, tiles = (STUDY.tile.side_px, how["tiles_per_bag"]) if PLAN.by_slide else (how["crop"], 1)
    squares = how["batch_size"] * tiles * (side / 256) ** 2 if how["embeddings"] == "none" else 0
    return int(max(4000 * processes(w), 1500 + 140 * squares)) * attempt


def slides_state(w):
    """The state of the slides that a job cuts; of slides that the study makes itself, or sheets do not name, nothing."""
    names = CUT[w.lot] if FILES["path"] else []
    return state([Path(PLAN.paths[name]) for name in names])


def selected_class():
    """Checkpoints that look at maps look at those that are drawn later; the others do not ask."""
    drawn = any(criterion(c).masks or criterion(c).source == "label-free" for c in STUDY.checkpoints)
    return f"--map-class {STUDY.localize.map_class}" if drawn else ""


def processes(w):
    """Processes that train one model together."""
    return STUDY.training(w.model)["processes"]


def torchrun(w):
    """What starts them, where there are several."""
    count = processes(w)
    return f"torchrun --standalone --nproc-per-node {count} --no-python " if count > 1 else ""


def shuffled_checkpoint(w):
    """The checkpoint of the model trained on shuffled labels that this one is compared with, where the study names one."""
    other = STUDY.probe.shuffled.get(w.model)
    run = RUN.format(dataset=w.dataset, model=other, fold=w.fold, seed=w.seed)
    return f"{R}/train/{run}/{w.checkpoint}.safetensors" if other else []


def run_key(w):
    """What one evaluation or probe is about, as JSON."""
    return settings(**{k: w[k] for k in ("dataset", "model", "checkpoint", "set", "split")}, fold=int(w.fold), seed=int(w.seed))


def made(base, file):
    """What a job leaves below the folder `base`: the `file`, {} its slide or split of images, or the stamp of its lot."""
    if LOTS:
        return f"{base}/{{split}}.lots/{{lot}}"
    return str(Path(base, file.format("{split}/{lot}" if PLAN.by_slide else "{split}")))


def target(base, file):
    """The file that a verb is told to write, as a function of the wildcards."""
    path = str(Path(base, file.format(f"{{split}}/{SLIDE}" if PLAN.by_slide else "{split}")))
    return lambda w: path.format(**w)


def each(w, output):
    """The words before a verb that works on a lot of slides of a split."""
    return lot_words(PLAN.lots(PLAN.part(int(w.fold), w.split)), w.lot, output[0]) if LOTS else ""


def lot_words(lots, lot, stamp):
    """The words before a verb that works on one of these lots, and leaves the stamp."""
    return f"each --slides {shlex.quote(json.dumps(lots[lot]))} --done {stamp} -- "


def lots_made(pattern, slides, lots=None):
    """What the jobs leave that work on these slides, in these lots; by default in those made of just these slides."""
    wanted = set(slides)
    return [pattern.replace("{lot}", lot) for lot, those in (lots or PLAN.lots(slides)).items() if wanted.intersection(those)]


def unit_tiles(w):
    """The tile table of the slide of a job, or the stamp of those of its split; images have none."""
    if LOTS:
        return tiled(w.fold, w.split)
    return f"{R}/tile/{DATASET}/{w.lot}.parquet" if PLAN.by_slide else []


def tiled(fold, part):
    """The stamp of all tile tables of one part of a fold; images have none.

    Who reads thousands of files waits for a stamp: Snakemake compares the inputs of a job with those of each job that reads from it.
    """
    return f"{R}/tile/{DATASET}.done/fold{fold}-{part}" if PLAN.by_slide else []


def all_tiled():
    return [tiled(fold, part) for fold in STUDY.folds for part in ("training", "test") if PLAN.by_slide]


def drawn(w, split):
    """The stamp of all maps of one split of one map set (floors included), or, of images, their one map file."""
    return map_base(w, split) + (".done" if PLAN.by_slide else "")


def pictured():
    """The stamps of the pictures of each map set and split."""
    return [
        (f"{R}/heatmap/{MAPS}/{{split}}.done" if PLAN.by_slide else f"{R}/heatmap/{MAPS}/{{split}}/index.json").format(
            **run, split=split
        )
        for run in PLAN.runs(floors=False)
        for split in STUDY.evaluate.splits
    ]


def map_base(w, split):
    """The map file of one split, or the folder with one file per slide."""
    base = MAPS.format(**{k: w[k] for k in ("dataset", "model", "fold", "seed", "checkpoint", "set")})
    return f"{R}/localize/{base}/{split}" + ("" if PLAN.by_slide else ".h5")


def scores(floors=True):
    return [
        f"{R}/evaluate/{MAPS}/{{split}}/scores.json".format(**run, split=split)
        for run in PLAN.runs(floors)
        for split in STUDY.evaluate.splits
    ]


def probes():
    """One probe per trained map set, on the first split that is scored; none unless the study asks for them."""
    return [
        f"{R}/probe/{MAPS}/{{split}}.json".format(**run, split=STUDY.evaluate.splits[0])
        for run in PLAN.runs(floors=False)
        if STUDY.probe.samples
    ]


def histories():
    c = STUDY
    return [
        f"{R}/train/{RUN}/history.csv".format(dataset=DATASET, model=m, fold=f, seed=s)
        for m in c.models
        for f in c.folds
        for s in c.seeds
    ]
