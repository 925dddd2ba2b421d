"""Checks of maps: whose evidence they show, and whether there is any in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wsol.evaluation.findings import CannotTell, Finding, counted, named
from wsol.evaluation.study import MapFacts, Study

Key = tuple[str, str, str]
_FEW = 3
_STRETCHED = 1e-6


def _sets(e: Study) -> dict[Key, list[MapFacts]]:
    """(run, method, split) -> its maps; without those that need no training."""
    found: dict[Key, list[MapFacts]] = {}
    for m in e.maps or ():
        if not m.floor:
            found.setdefault((m.run, m.method, m.split), []).append(m)
    return found


def _say(key: Key) -> str:
    run, method, split = key
    return f"{method} on {split}" + (f" ({run})" if run else "")


def _badges(e: Study) -> dict[Key, str]:
    """What each map set claims to show; "" where it claims nothing."""
    return {(c.run, c.method, c.split): c.badges.get("map_class", "") for c in e.claims or ()}


def map_class(e: Study) -> list[Finding]:
    """Maps of the true class under another name: a user without labels could not draw them."""
    sets = {key: told for key, maps in _sets(e).items() if (told := [m for m in maps if m.target is not None])}
    if not sets:
        raise CannotTell("no map says which class it was drawn for")
    badges = _badges(e)
    findings: dict[tuple[str, str, str], list[str]] = {}
    for key, maps in sets.items():
        if found := _class_of(e, maps, badges.get(key, "")):
            severity, text, remedy = found
            findings.setdefault((severity, text, remedy), []).append(_say(key))
    return [Finding("map-class", s, f"{text}: {named(where, 3)}", remedy) for (s, text, remedy), where in findings.items()]


def _class_of(e: Study, maps: Sequence[MapFacts], claim: str) -> tuple[str, str, str] | None:
    """(severity, text, remedy) of one set of maps, or None where the targets are what they claim to be."""
    labels = [e.labels.get(m.sample, "") for m in maps]
    truth = all(m.target == label for m, label in zip(maps, labels, strict=True)) and len(set(labels)) > 1
    judged = [m for m in maps if m.predicted is not None]
    missed = sum(m.predicted != e.labels.get(m.sample) for m in judged)
    draw = "draw the declared positive class for all, or the predicted class"
    if claim == "ground truth":
        return "warning", "maps of the true class, which nobody has at test time; the badge says so", draw
    if truth and missed:
        return (
            "error",
            f"every map shows the true class although the model decides otherwise in {missed} of {len(judged)} samples"
            + (f"; the badge claims {claim!r}" if claim else ""),
            draw,
        )
    if claim == "predicted" and (wrong := sum(m.target != m.predicted for m in judged)):
        return "error", f"{wrong} of {len(judged)} maps do not show the predicted class that they claim", draw
    if claim == "declared positive" and (wrong := sum(m.target not in e.positive for m in maps)):
        like = ", each that of its label" if truth else ""
        return "error", f"{wrong} of {len(maps)} maps show another class than the declared positive{like}", draw
    if truth and not judged and claim in ("", "unknown"):
        return "warning", "every map shows the true class, and no prediction tells whether the model chose it", draw
    return None


def normal_class_maps(e: Study) -> list[Finding]:
    """Negatives scored by the map of their own, negative class (survey: what CAMELYON16's normals contribute)."""
    if e.mask_means == "any-foreground":
        return []
    if not e.positive:
        raise CannotTell("no class is declared positive")
    badges = _badges(e)
    found: dict[str, list[str]] = {}
    for key, maps in _sets(e).items():
        negatives = [m for m in maps if e.labels.get(m.sample, "") not in {"", *e.positive} and m.target is not None]
        wrong = [m for m in negatives if m.target not in e.positive]
        if wrong:
            severity = "warning" if badges.get(key) in ("predicted", "ground truth") else "error"
            found.setdefault(severity, []).append(f"{_say(key)}: {len(wrong)} of {counted(len(negatives), 'negative')}")
    remedy = "draw the positive class on all samples: the evidence for normal tissue is no false alarm for tumor"
    text = "negatives scored by the map of a negative class against masks of the positive one"
    return [Finding("normal-class-maps", severity, f"{text}: {named(where, 3)}", remedy) for severity, where in found.items()]


def broken_maps(e: Study) -> list[Finding]:
    """Maps that hold NaN or infinity, or cannot be read."""
    broken = [m for m in e.maps or () if m.problem]
    if not broken:
        return []
    shown = (f"{m.method}, {m.sample}: {m.problem}" for m in broken)
    remedy = "mend what makes them (0/0 in a min-max, a sample that was never drawn); a map that cannot be ranked has no score"
    return [Finding("broken-maps", "error", f"{counted(len(broken), 'map')} cannot be scored: {named(shown, 3)}", remedy)]


def constant_maps(e: Study) -> list[Finding]:
    """Maps of one value say nothing about where."""
    dead: list[str] = []
    some: list[str] = []
    for key, maps in _sets(e).items():
        good = [m for m in maps if not m.problem]
        constant = [m.sample for m in good if m.high == m.low]
        if constant:
            say = f"{_say(key)}: {len(constant)} of {len(good)} ({named(constant, 3)})"
            (dead if len(constant) == len(good) else some).append(say)
    remedy = "look for a dead ReLU, a class without gradient or a head of zeros; they are scored as the constants they are"
    return [
        Finding("constant-maps", severity, f"{text}: {named(where, 3)}", remedy)
        for severity, text, where in (
            ("error", "all maps are constant", dead),
            ("warning", "constant maps", some),
        )
        if where
    ]


def per_image_range(e: Study) -> list[Finding]:
    """Every map stretched to [0, 1]: then normals light up too, and no threshold can say `nothing here`."""
    stretched = []
    for key, maps in _sets(e).items():
        live = [m for m in maps if not m.problem and m.high > m.low]
        if len(live) >= _FEW and all(abs(m.low) < _STRETCHED and abs(m.high - 1) < _STRETCHED for m in live):
            negatives = sum(e.labels.get(m.sample, "") not in {"", *e.positive} for m in live) if e.positive else 0
            more = f", {counted(negatives, 'negative')} among them" if negatives else ""
            stretched.append(f"{_say(key)}: {counted(len(live), 'map')}{more}")
    found = []
    remedy = "store raw maps, and fit one range on validation maps"
    if stretched:
        text = f"every map spans exactly 0 to 1, as if stretched by its own minimum and maximum: {named(stretched, 3)}"
        found.append(Finding("per-image-range", "warning", text, remedy))
    said = [c.name for c in e.trained() if c.badges.get("scale") == "per-image min-max"]
    if said:
        text = f"scores stretched to [0, 1] in every image, normals too: {named(said, 3)}"
        found.append(Finding("per-image-range", "warning", text, remedy))
    return found


def identical_maps(e: Study) -> list[Finding]:
    """Two methods or runs with the same maps, and one map for all samples."""
    sets = {key: sorted(maps, key=lambda m: m.sample) for key, maps in _sets(e).items()}
    found = []
    stuck = [_say(key) for key, maps in sets.items() if _stuck(maps)]
    if stuck:
        text = f"one and the same map for all samples: {named(stuck, 3)}"
        remedy = "the map does not depend on the image: look at what is drawn, and at the file names"
        found.append(Finding("identical-maps", "error", text, remedy))
    same: dict[tuple[object, ...], list[Key]] = {}
    for key, maps in sets.items():
        live = [(m.sample, m.digest) for m in maps if m.digest and m.high > m.low]
        if live and not _stuck(maps):
            same.setdefault((key[2], *live), []).append(key)
    for keys in same.values():
        if len(keys) > 1:
            text = f"the same maps, bit for bit, under {counted(len(keys), 'name')}: {named((_say(k) for k in keys), 4)}"
            remedy = "show one where two formulas agree (CAM at a GAP head); else see whether options and weights arrived"
            found.append(Finding("identical-maps", _weight(keys), text, remedy))
    return found


def _stuck(maps: Sequence[MapFacts]) -> bool:
    """Whether three samples or more have one map that is not constant."""
    return len(maps) >= _FEW and maps[0].high > maps[0].low and _one(m.digest for m in maps)


def _one(values: Iterable[str]) -> bool:
    every = set(values)
    return len(every) == 1 and "" not in every


def _weight(keys: Sequence[Key]) -> str:
    """A note where only runs differ (two checkpoints may be one epoch), a warning where methods do."""
    return "warning" if len({method for _, method, _ in keys}) > 1 else "note"
