rule evaluate:
    input:
        manifest=rules.prepare.output.manifest,
        masks=rules.prepare.output.masks,
        maps=lambda w: map_files(w, w.split),
        validation=lambda w: map_files(w, "valcl"),
        record=lambda w: f"{R}/train/{RUN}/".format(**w) + ("none.json" if w.model == "floors" else "run.json"),
    output:
        scores=f"{R}/evaluate/{MAPS}/{{split}}/scores.json",
        curves=f"{R}/evaluate/{MAPS}/{{split}}/curves.parquet",
    log:
        f"logs/evaluate/{MAPS}-{{split}}.log",
    benchmark:
        f"{R}/benchmark/evaluate/{MAPS}/{{split}}.tsv"
    params:
        settings=settings(**STUDY.evaluate.model_dump()),
        # A folder, not a list: thousands of slides do not fit in one command line.
        maps=lambda w: map_base(w, w.split),
        validation=lambda w: map_base(w, "valcl"),
        key=lambda w: settings(**{k: w[k] for k in ("dataset", "model", "checkpoint", "set", "split")}, fold=int(w.fold), seed=int(w.seed)),
    shell:
        "wsol evaluate --manifest {input.manifest} --masks {input.masks} --record {input.record} --key {params.key:q}"
        " --settings {params.settings:q} --validation {params.validation} --maps {params.maps} --scores {output.scores} --curves {output.curves} 2> {log}"


rule heatmap:
    input:
        manifest=rules.prepare.output.manifest,
        maps=f"{R}/localize/{MAPS}/{UNIT}.h5",
        scores=f"{R}/evaluate/{MAPS}/{{split}}/scores.json",
        masks=rules.prepare.output.masks,
    output:
        index=f"{R}/heatmap/{MAPS}/{UNIT}/index.json",
    log:
        f"logs/heatmap/{MAPS}-{UNIT_LOG}.log",
    params:
        settings=settings(**STUDY.heatmap.model_dump()),
    shell:
        "wsol heatmap --manifest {input.manifest} --masks {input.masks} --maps {input.maps} --scores {input.scores}"
        " --settings {params.settings:q} --out {output.index} 2> {log}"
