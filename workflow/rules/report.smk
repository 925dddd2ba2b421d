rule report:
    input:
        scores=scores(),
        audit=rules.audit.output.audit,
        probes=probes(),
        heatmaps=pictured(),
        histories=histories(),
        tiles=all_tiled(),
    output:
        page=report(f"{R}/report/{DATASET}/index.html", caption="../report/page.rst", category="Study"),
        table=report(f"{R}/report/{DATASET}/leaderboard.csv", caption="../report/leaderboard.rst", category="Study"),
        differences=report(f"{R}/report/{DATASET}/differences.csv", caption="../report/differences.rst", category="Study"),
    log:
        f"logs/report/{DATASET}.log",
    benchmark:
        f"{R}/benchmark/report/{DATASET}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
    params:
        title=STUDY.report.title or DATASET,
        pictures=STUDY.report.pictures,
        results=lambda w: R,
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
        probes=lambda w, input: " ".join(f"--probes {path}" for path in input.probes),
        command=shlex.join(
            ["snakemake", "--cores", "2", "--configfile", *(os.path.relpath(path) for path in workflow.configfiles)]
        ),
    shell:
        "wsol report --title {params.title:q} --command {params.command:q} --results {params.results} --pictures {params.pictures} {params.scores} --audit {input.audit} {params.probes} --out {output.page} 2> {log}"


# The database is made once, before anything is logged: several processes creating it at once break it. It waits for all that is
# computed: a server that does not answer then fails the tracking, and nothing else, whatever the profile says of going on. What
# waits is not `ancient`: where such an input is made anew, Snakemake forgets the other reasons of a job to run.
rule mlflow_init:
    input:
        page=rules.report.output.page,
        heatmaps=pictured(),
    output:
        stamp=f"{R}/log/{DATASET}/experiment.json",
    log:
        f"logs/log/{DATASET}-init.log",
    benchmark:
        f"{R}/benchmark/log/{DATASET}-init.tsv"
    localrule: True
    conda:
        "../envs/wsol.yaml"
    resources:
        mlflow=1,
    params:
        uri=TRACKING_URI,
        experiment=STUDY.log.experiment or DATASET,
    shell:
        "wsol log --init --tracking-uri {params.uri:q} --experiment {params.experiment:q} --out {output.stamp} 2> {log}"


rule log:
    input:
        stamp=rules.mlflow_init.output.stamp,
        scores=scores(),
        audit=rules.audit.output.audit,
        heatmaps=pictured(),
        histories=histories(),
    output:
        done=f"{R}/log/{DATASET}/logged.json",
    log:
        f"logs/log/{DATASET}.log",
    benchmark:
        f"{R}/benchmark/log/{DATASET}.tsv"
    localrule: True
    conda:
        "../envs/wsol.yaml"
    resources:
        mlflow=1,
    params:
        uri=TRACKING_URI,
        experiment=STUDY.log.experiment or DATASET,
        results=lambda w: R,
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
    shell:
        "wsol log --tracking-uri {params.uri:q} --experiment {params.experiment:q} --results {params.results} --audit {input.audit} {params.scores} --out {output.done} 2> {log}"


# The last word of a study with slides: it fails, with the list, where a slide gave nothing. All else is done by then, the tracking
# too, whatever the profile says of going on after a failure.
rule faults:
    input:
        page=rules.report.output.page,
        logged=rules.log.output.done,
        heatmaps=pictured(),
        scores=scores(),
        tiles=all_tiled(),
    output:
        stamp=f"{R}/report/{DATASET}/faults.json",
    log:
        f"logs/faults/{DATASET}.log",
    benchmark:
        f"{R}/benchmark/faults/{DATASET}.tsv"
    localrule: True
    conda:
        "../envs/wsol.yaml"
    params:
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
        tiles=lambda w: f"{R}/tile/{DATASET}",
        accepted=lambda w: " ".join(f"--accept {slide}" for slide in STUDY.report.accepted),
    shell:
        "wsol faults --tiles {params.tiles} {params.scores} {params.accepted} --out {output.stamp} 2>&1 | tee {log} >&2"
