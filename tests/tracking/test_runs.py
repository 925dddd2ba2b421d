"""Score files as flat runs: names, percent, steps, what is left out."""

from __future__ import annotations

import pytest

from wsol.tracking import read_history, records, run_key


def one(scores, **options):
    return records([scores], **options)[0]


def test_one_record_for_each_method(make_scores):
    found = records([make_scores(), make_scores("floors", ("hematoxylin",))])
    assert [r.name for r in found] == [
        "cam · gap · b-cl · fold 0 · seed 0",
        "grad-cam · gap · b-cl · fold 0 · seed 0",
        "floor hematoxylin · fold 0 · seed 0",
    ]
    assert len({r.run_key for r in found}) == 3
    assert [r.tags["kind"] for r in found] == ["localizer", "localizer", "floor"]


def test_metrics_are_percent_with_four_digits(make_scores):
    metrics = one(make_scores()).metrics
    assert metrics["test/pxap"] == 64.7123
    assert metrics["test/pxap_low"] == 59.7123
    assert metrics["test/pxap_high"] == 68.7123
    assert metrics["test/dice"] == 61.2346
    assert metrics["test_mucin_ous/pxap"] == 74.7123
    assert metrics["test/accuracy"] == 95
    assert (metrics["test/accuracy_low"], metrics["test/accuracy_high"]) == (90, 99)
    assert metrics["test/flagged_area"] == 12.5
    assert (metrics["test/samples"], metrics["test/patients"]) == (3, 2)
    assert metrics["test/seconds_per_sample"] == 0.25
    assert (metrics["test/threshold_pct"], metrics["test/oracle_threshold_pct"]) == (42, 40)
    assert metrics["test/dice_lost_to_threshold"] == pytest.approx(8.7654)


def test_what_is_undefined_is_left_out_and_said_so(make_scores):
    scores = make_scores()
    scores["methods"]["cam"]["groups"]["all"]["iou"] = float("nan")
    record = one(scores)
    assert "test/recall" not in record.metrics
    assert "test/dice_low" not in record.metrics
    assert "test/iou" not in record.metrics
    assert {"test/recall", "test/iou", "test/dice_low"} <= set(record.tags["wsol.skipped"].split(", "))


def test_curves_have_integer_percent_steps_and_percent_values(make_scores):
    curves = one(make_scores()).curves
    assert [s for s, _ in curves["threshold_pct/dice"]] == list(range(101))
    assert dict(curves["threshold_pct/dice"])[40] == 80
    assert curves["threshold_pct/recall"][:2] == [(0, 100), (1, 99)]
    assert len(curves["threshold_pct/precision"]) == 100  # the last point is undefined


def test_the_plateau_is_the_one_that_was_evaluated(make_full):
    assert one(make_full()).metrics["test/plateau_pct"] == pytest.approx(11)


def test_splits_of_one_run_become_one_record(make_scores):
    found = records([make_scores(split="valcl"), make_scores(split="test")])
    assert len(found) == 2
    assert {"test/pxap", "valcl/pxap"} <= set(found[0].metrics)
    assert {"threshold_pct/dice", "threshold_pct_valcl/dice"} <= set(found[0].curves)


def test_order_of_files_changes_nothing(make_scores):
    files = [make_scores(fold=f, split=s) for f in (0, 1) for s in ("test", "valcl")]
    assert records(files) == records(files[::-1])


def test_the_protocol_is_part_of_the_key_the_code_is_not(make_scores):
    first, second, third = (make_scores(methods=("cam",)) for _ in range(3))
    second["methods"]["cam"] = second["methods"]["cam"] | {"badges": {**first["methods"]["cam"]["badges"], "threshold": "fixed"}}
    third["methods"]["cam"] = third["methods"]["cam"] | {"badges": {**first["methods"]["cam"]["badges"], "code": "0.2.0"}}
    assert one(first).run_key != one(second).run_key
    assert one(first).run_key == one(third).run_key
    assert one(third).tags["badge.code"] == "0.2.0"


def test_run_key_does_not_depend_on_order():
    assert run_key({"a": 1, "b": 2}) == run_key({"b": 2, "a": 1}) != run_key({"a": 2, "b": 1})


def test_twice_the_same_run_is_refused(make_scores):
    with pytest.raises(ValueError, match="two score files are about"):
        records([make_scores(), make_scores()])


def test_what_is_no_score_file_is_refused(make_scores):
    with pytest.raises(ValueError, match="lacks"):
        records([{"key": {}, "methods": {}}])


def test_training_curves_are_stepped_by_epoch(make_scores, tmp_path):
    (tmp_path / "history.csv").write_text(
        "epoch,train_loss,valcl_accuracy,val/pxap,lr,note\n1,0.6931472,0.5,0.61,0.0001,hello\n2,0.5,,0.62,1.23456789e-05,\n"
    )
    rows = read_history(tmp_path / "history.csv")
    assert rows[1] == {"epoch": 2, "train_loss": 0.5, "val/pxap": 0.62, "lr": 1.23456789e-05}
    curves = one(make_scores(), histories={("gap", 0, 0): rows}).curves
    assert curves["train/loss"] == [(1, 0.693147), (2, 0.5)]
    assert curves["val/accuracy"] == [(1, 50)]
    assert curves["val/pxap"] == [(1, 61), (2, 62)]
    assert curves["train/lr"] == [(1, 0.0001), (2, 1.23457e-05)]
    assert not any(k.startswith("val") for k in one(make_scores(fold=1), histories={("gap", 0, 0): rows}).curves)


def test_a_history_without_epochs_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("loss\n1\n")
    with pytest.raises(ValueError, match="column 'epoch'"):
        read_history(tmp_path / "h.csv")


def test_params_are_flat_words(make_scores):
    record = one(make_scores(), params={"gap": {"head": "gap", "train": {"lr": 1e-4, "epochs": 3}, "fold": 9}})
    assert record.params["train.lr"] == "0.0001"
    assert record.params["fold"] == "0"  # the key wins
    assert record.params["method"] == "cam"


def test_pictures_run_from_worst_to_best(make_scores, tmp_path):
    pictures = one(make_scores(overlays=tmp_path), root=tmp_path).pictures
    assert [(p.step, p.sample) for p in pictures] == [(0, "test_2"), (1, "test_0"), (2, "test_1")]
    assert all(p.path.is_file() for p in pictures)
    few = one(make_scores(overlays=tmp_path), root=tmp_path, pictures=2).pictures
    assert [p.sample for p in few] == ["test_2", "test_1"]


def test_a_class_keeps_only_what_a_dashboard_can_show(make_scores):
    metrics = one(make_scores()).metrics
    assert {k.split("/")[1] for k in metrics if k.startswith("test_mucin_ous/")} == {
        "pxap", "pxap_low", "pxap_high", "ap", "prevalence", "dice", "samples",
    }  # fmt: skip


def test_newer_files_have_more_metrics(make_full):
    metrics = one(make_full()).metrics
    wanted = {
        "auc": 72, "normalized_ap": 31, "dice_background": 64, "specificity": 59, "image_pxap": 61, "patient_pxap": 62,
        "patient_dice": 51, "dice_lost_per_image": 4.3, "over_activated": 25, "under_activated": 12.5, "lesions_hit": 75,
        "predicted_regions_right": 60, "froc": 55, "max_box_acc": 50, "max_box_acc_v2": 40, "gt_known_error": 45,
        "classification_auc": 97, "ece": 8.1, "brier": 0.1234,
    }  # fmt: skip
    assert {name: metrics[f"test/{name}"] for name in wanted} == wanted
    assert not any(k.startswith("test_mucin_ous/") and k.endswith(("auc", "specificity")) for k in metrics)


def test_a_part_that_a_file_lacks_is_not_skipped_but_a_null_is(make_scores, make_full):
    old, new = one(make_scores()), one(make_full())
    assert not {"test/froc", "test/ece", "test/patient_pxap", "test/slide_pxap"} & set(old.skipped)
    assert "test/top1_error" in new.skipped
    assert "test/slide_pxap" not in new.skipped


def test_floors_have_no_classification(make_full):
    metrics = one(make_full(model="floors", methods=("random",))).metrics
    assert "test/ece" not in metrics
    assert metrics["test/froc"] == 55


def test_audit_and_protocol_are_tags(make_full):
    audit = {"glas": {"errors": 2, "warnings": 1, "findings": []}, "elsewhere": {"errors": 9, "warnings": 9}}
    tags = one(make_full(), audit=audit).tags
    assert (tags["audit.errors"], tags["audit.warnings"], tags["protocol"]) == ("2", "1", "ours")
    assert not any(k.startswith("audit.") for k in one(make_full(), audit={"elsewhere": audit["elsewhere"]}).tags)
    assert one(make_full(), audit=audit).run_key == one(make_full()).run_key
