"""The auditor on the splits of GlaS, whose leak is known."""

from __future__ import annotations

from wsol.cli.audit import audit
from wsol.cli.config import Prepare
from wsol.cli.prepare import prepare


def test_the_folds_of_the_survey_leak_and_ours_do_not(shared_data, tmp_path):
    texts = {}
    for source in ("glas", "glas-patient"):
        options = {"root": str(shared_data / "glas")}
        prepare(
            Prepare(name=source, source=source, options=options), manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet"
        )
        findings = audit(
            scores=[], manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet", results=None, ledger=None, out=None
        )
        texts[source] = [(f.text, f.where) for f in findings if f.check == "shared-patients" and f.severity == "error"]
        assert "mask-ids" in findings.passed
    (leak,) = texts["glas"]
    # Counted from Grade.csv and the fold files: 77 of 80 in folds 0 and 4, 79 in the others.
    assert "are in training and in test: 79 of 80 test samples" in leak[0]
    assert leak[1] == "fold 1; fewer or as many in 0, 2, 3, 4"
    assert texts["glas-patient"] == []
