rule report:
    input:
        scores=scores(),
        audit=rules.audit.output.audit,
        probes=probes(),
        heatmaps=heatmaps(),
        histories=histories(),
        statuses=[f"{R}/tile/{DATASET}/{slide}.json" for slide in PLAN.all_slides()],
    output:
        page=f"{R}/report/{DATASET}/index.html",
        table=f"{R}/report/{DATASET}/leaderboard.csv",
        differences=f"{R}/report/{DATASET}/differences.csv",
    log:
        f"logs/report/{DATASET}.log",
    params:
        title=STUDY.report.title or DATASET,
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
        probes=lambda w, input: " ".join(f"--probes {path}" for path in input.probes),
    shell:
        "wsol report --title {params.title:q} --results {R} {params.scores} --audit {input.audit} {params.probes} --out {output.page} 2> {log}"


# The last word of a study with slides: it fails, with the list, where a slide gave nothing. All else is done by then.
rule faults:
    input:
        page=rules.report.output.page,
        heatmaps=heatmaps(),
        scores=scores(),
        statuses=[f"{R}/tile/{DATASET}/{slide}.json" for slide in PLAN.all_slides()],
    output:
        stamp=f"{R}/report/{DATASET}/faults.json",
    log:
        f"logs/faults/{DATASET}.log",
    params:
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
        accepted=lambda w: " ".join(f"--accept {slide}" for slide in STUDY.report.accepted),
    shell:
        "wsol faults --tiles {R}/tile/{DATASET} {params.scores} {params.accepted} --out {output.stamp} 2>&1 | tee {log} >&2"


TRACKING_URI = STUDY.log.tracking_uri or f"sqlite:///{Path(R).absolute()}/log/mlflow.db"


# The database is made once, before anything is logged: several processes creating it at once break it.
rule mlflow_init:
    output:
        stamp=f"{R}/log/{DATASET}/experiment.json",
    log:
        f"logs/log/{DATASET}-init.log",
    params:
        uri=TRACKING_URI,
        experiment=STUDY.log.experiment or DATASET,
    resources:
        mlflow=1,
    shell:
        "wsol log --init --tracking-uri {params.uri:q} --experiment {params.experiment:q} --out {output.stamp} 2> {log}"


rule log:
    input:
        stamp=rules.mlflow_init.output.stamp,
        scores=scores(),
        audit=rules.audit.output.audit,
        heatmaps=heatmaps(),
        histories=histories(),
    output:
        done=f"{R}/log/{DATASET}/logged.json",
    log:
        f"logs/log/{DATASET}.log",
    params:
        uri=TRACKING_URI,
        experiment=STUDY.log.experiment or DATASET,
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
    resources:
        mlflow=1,
    shell:
        "wsol log --tracking-uri {params.uri:q} --experiment {params.experiment:q} --results {R} --audit {input.audit} {params.scores} --out {output.done} 2> {log}"
