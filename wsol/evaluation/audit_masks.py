"""Checks of masks: missing ones read as empty, ids read wrong, and masks that contradict labels."""

from __future__ import annotations

from collections.abc import Callable

from wsol.evaluation.findings import CannotTell, Finding, counted, named
from wsol.evaluation.study import Claim, MaskFacts, Study

_BYTE = 255


def mask_files(e: Study) -> list[Finding]:
    """Files that are gone or damaged, and samples that were scored although nobody knows their mask."""
    masks = e.masks or {}
    found = []
    if broken := [m for m in masks.values() if m.problem]:
        text = f"{counted(len(broken), 'mask')} cannot be read: {named((f'{m.sample} ({m.problem})' for m in broken), 3)}"
        remedy = (
            "restore the files or take the samples out; a reader that takes a missing mask as empty calls all foreground false"
        )
        found.append(Finding("mask-files", "error", text, remedy))
    bare = [s for c in e.claims or () for s in c.scored if s not in masks]
    if bare:
        number = len(set(bare))
        text = f"{counted(number, 'sample')} scored without a mask: {named(bare)}; a missing mask was read as an empty one"
        if e.foreign:
            text = f"{counted(number, 'sample')} without a mask: {named(bare)}; if scored, missing masks were read as empty"
        remedy = "score only samples that have a mask, or that are known to be empty"
        found.append(Finding("mask-files", "warning" if e.foreign else "error", text, remedy))
    return found


def empty_masks(e: Study) -> list[Finding]:
    """A sample of the positive class whose mask holds nothing."""
    masks = e.masks or {}
    none = {m.sample for m in masks.values() if m.share == 0 or m.kind == "empty"}
    none |= {s for c in e.claims or () for s, share in c.scored.items() if share == 0}
    must = _must_hold(e)
    wrong = sorted(s for s in none if s in e.labels and must(s))
    if not wrong:
        return []
    declared = [s for s in wrong if s in masks and masks[s].kind == "empty"]
    text = f"{counted(len(wrong), 'sample')} with something to find but an empty mask: {named(wrong)}"
    text += f" ({len(declared)} of them without any file, declared empty)" if declared else ""
    remedy = "look at the files and at the ids that are read as foreground; an empty mask turns every hit into a false alarm"
    return [Finding("empty-masks", "error" if e.mask_means == "class" and e.positive else "warning", text, remedy)]


def _must_hold(e: Study) -> Callable[[str], bool]:
    """Whether a sample must have foreground: those of a positive class, or all where every class may hold some."""
    if e.mask_means == "any-foreground":
        return lambda sample: True
    if not e.positive:
        raise CannotTell("no class is declared positive, so nobody knows whose masks must not be empty")
    return lambda sample: e.labels[sample] in e.positive


def negative_masks(e: Study) -> list[Finding]:
    """A sample of a negative class whose mask holds foreground."""
    if e.mask_means == "any-foreground":
        return []
    if not e.positive:
        raise CannotTell("no class is declared positive")
    filled = {m.sample for m in (e.masks or {}).values() if m.share}
    filled |= {s for c in e.claims or () for s, share in c.scored.items() if share}
    wrong = sorted(s for s in filled if e.labels.get(s, "") not in {"", *e.positive})
    if not wrong:
        return []
    text = f"{counted(len(wrong), 'sample')} of a negative class with foreground in the mask: {named(wrong)}"
    remedy = "correct the label or the mask; where masks mark something that every class holds, declare mask_means any-foreground"
    return [Finding("negative-masks", "warning", text, remedy)]


def mask_ids(e: Study) -> list[Finding]:
    """Ids that are read as something else than they mean."""
    read = [m for m in (e.masks or {}).values() if m.ids]
    if not read:
        raise CannotTell("no mask file was read")
    found = [*_unknown_ids(read), *_two_habits(read)]
    ignored = [m for m in read if _BYTE in m.ids and _counts(m, _BYTE) and any(0 < i < _BYTE for i in m.ids)]
    if ignored:
        text = (
            f"{counted(len(ignored), 'mask')} with 255 beside other ids ({named(m.sample for m in ignored)}), and 255 is read as "
            "foreground: it often means `ignore`"
        )
        found.append(Finding("mask-ids", "warning", text, "name the ids that are foreground (mask_values)"))
    return found


def _counts(mask: MaskFacts, value: int) -> bool:
    return value in mask.foreground if mask.foreground else value > 0


def _unknown_ids(read: list[MaskFacts]) -> list[Finding]:
    """Masks of which no id is read as foreground although there are ids above 0."""
    blind = [m for m in read if any(i > 0 for i in m.ids) and not any(_counts(m, i) for i in m.ids)]
    if not blind:
        return []
    text = (
        f"{counted(len(blind), 'mask')} read as empty: {named(m.sample for m in blind)}; ids {named(blind[0].ids, 6)} in the "
        f"file, but only {named(blind[0].foreground, 6)} is read as foreground"
    )
    return [Finding("mask-ids", "error", text, "name the ids that really are foreground (mask_values)")]


def _two_habits(read: list[MaskFacts]) -> list[Finding]:
    """Masks with ids 0 and 1 beside masks with 0 and 255."""
    ones, bytes_ = ([m for m in read if set(m.ids) <= {0, high} and high in m.ids] for high in (1, _BYTE))
    if not ones or not bytes_:
        return []
    text = (
        f"{counted(len(ones), 'mask')} with ids 0 and 1 ({named((m.sample for m in ones), 3)}) beside {len(bytes_)} with 0 and "
        f"255 ({named((m.sample for m in bytes_), 3)}): a reader that cuts at half of 255 sees nothing in the first"
    )
    return [Finding("mask-ids", "warning", text, "save all masks alike, and check how the tool that was scored reads them")]


def gray_levels(e: Study) -> list[Finding]:
    """Masks saved as ids 0 and 1 look all black, and a reader that expects 255 finds nothing. Asked of other tools only."""
    if not e.foreign:
        return []
    read = [m for m in (e.masks or {}).values() if m.ids]
    ones = [m for m in read if set(m.ids) <= {0, 1} and 1 in m.ids]
    if not ones:
        return []
    text = f"{len(ones)} of {counted(len(read), 'mask')} hold ids 0 and 1: {named((m.sample for m in ones), 3)}"
    remedy = "make sure that the tool compares with > 0; one that divides by 255 and cuts at 0.5 scores against empty masks"
    return [Finding("gray-levels", "warning", text, remedy)]


def full_masks(e: Study) -> list[Finding]:
    """Masks that are foreground everywhere."""
    read = [m for m in (e.masks or {}).values() if m.share is not None]
    if not read:
        raise CannotTell("no mask file was read")
    full = [m for m in read if m.share == 1]
    shifted = [m for m in full if len(m.ids) > 1]
    plain = [m for m in full if len(m.ids) <= 1]
    found = []
    if shifted:
        text = (
            f"{counted(len(shifted), 'mask')} of several ids and no background: {named(m.sample for m in shifted)}; the ids "
            f"{named(shifted[0].ids, 6)} are all read as foreground, so background seems to have an id of its own"
        )
        found.append(Finding("full-masks", "error", text, "name the ids that are foreground (mask_values)"))
    if plain:
        text = f"{len(plain)} of {counted(len(read), 'mask')} are foreground everywhere: {named(m.sample for m in plain)}"
        remedy = "look at them: right for an image inside a tumor, wrong for an inverted mask or one of background id 1"
        found.append(Finding("full-masks", "warning", text, remedy))
    return found


def unscored_samples(e: Study) -> list[Finding]:
    """Samples of a split that were left out of its numbers."""
    found: dict[tuple[str, int, tuple[str, ...]], Claim] = {}
    for c in e.claims or ():
        absent = sorted(set(e.held(c.fold, c.split)) - set(c.scored))
        if absent and c.scored:
            found.setdefault((c.split, c.fold, tuple(absent)), c)
    return [
        Finding(
            "unscored-samples",
            "warning",
            f"{len(absent)} of {counted(len(e.held(fold, split)), f'{split} sample')} not scored: {named(absent)}",
            "give them masks (or declare them empty), or say beside the numbers that they are left out",
            f"fold {fold}",
        )
        for split, fold, absent in found
    ]
