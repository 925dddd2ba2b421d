rule evaluate:
    input:
        manifest=rules.prepare.output.manifest,
        masks=rules.prepare.output.masks,
        maps=lambda w: drawn(w, w.split),
        validation=lambda w: drawn(w, "valcl"),
        record=lambda w: f"{R}/train/{RUN}/".format(**w) + ("none.json" if w.model == "floors" else "run.json"),
    output:
        scores=report(
            f"{R}/evaluate/{MAPS}/{{split}}/scores.json",
            caption="../report/scores.rst",
            category="Scores",
            subcategory="{model}",
            labels={**{part: f"{{{part}}}" for part in ("checkpoint", "set", "fold", "seed", "split")}},
        ),
        curves=f"{R}/evaluate/{MAPS}/{{split}}/curves.parquet",
    log:
        f"logs/evaluate/{MAPS}-{{split}}.log",
    benchmark:
        f"{R}/benchmark/evaluate/{MAPS}/{{split}}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
    params:
        seen=MASKS,
        settings=settings(**STUDY.evaluate.model_dump()),
        # A folder, not a list: thousands of slides do not fit in one command line.
        maps=lambda w: map_base(w, w.split),
        validation=lambda w: map_base(w, "valcl"),
        key=run_key,
    shell:
        "wsol evaluate --manifest {input.manifest} --masks {input.masks} --record {input.record} --key {params.key:q}"
        " --settings {params.settings:q} --validation {params.validation} --maps {params.maps} --scores {output.scores} --curves {output.curves} 2> {log}"


rule heatmap:
    input:
        manifest=rules.prepare.output.manifest,
        maps=made(f"{R}/localize/{MAPS}", "{}.h5"),
        scores=f"{R}/evaluate/{MAPS}/{{split}}/scores.json",
        masks=rules.prepare.output.masks,
    output:
        index=made(f"{R}/heatmap/{MAPS}", "{}/index.json"),
    log:
        f"logs/heatmap/{MAPS}-{UNIT_LOG}.log",
    benchmark:
        f"{R}/benchmark/heatmap/{MAPS}/{UNIT_LOG}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60, 10),
        lane=1,
    params:
        each=each,
        maps=target(f"{R}/localize/{MAPS}", "{}.h5"),
        out=target(f"{R}/heatmap/{MAPS}", "{}/index.json"),
        seen=MASKS,
        settings=settings(**STUDY.heatmap.model_dump()),
    shell:
        "wsol {params.each}heatmap --manifest {input.manifest} --masks {input.masks} --maps {params.maps} --scores {input.scores}"
        " --settings {params.settings:q} --out {params.out} 2> {log}"


if PLAN.by_slide:

    rule gather_heatmaps:
        input:
            lambda w: lots_made(
                made(f"{R}/heatmap/{MAPS}", "{}/index.json").format(**w, lot="{lot}"), PLAN.part(int(w.fold), w.split)
            ),
        output:
            touch(f"{R}/heatmap/{MAPS}/{{split}}.done"),
        log:
            f"logs/heatmap/{MAPS}-{{split}}.done.log",
        benchmark:
            f"{R}/benchmark/heatmap/{MAPS}/{{split}}.done.tsv"
        localrule: True
        conda:
            "../envs/wsol.yaml"
        shell:
            "echo pictured > {log}"


# Pixels are taken away (faithfulness) and weights are (sanity); off unless the study's `probe.samples` is above 0.
rule probe:
    input:
        model=f"{R}/train/{RUN}/{{checkpoint}}.safetensors",
        recipe=f"{R}/train/{RUN}/{{checkpoint}}.json",
        manifest=rules.prepare.output.manifest,
        masks=rules.prepare.output.masks,
        tiles=lambda w: tiled(w.fold, w.split),
        shuffled=shuffled_checkpoint,
    output:
        probe=f"{R}/probe/{MAPS}/{{split}}.json",
    log:
        f"logs/probe/{MAPS}-{{split}}.log",
    benchmark:
        f"{R}/benchmark/probe/{MAPS}/{{split}}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=gpus(STUDY.localize.device),
    params:
        settings=lambda w: settings(
            methods=STUDY.methods(w.set),
            map_class=STUDY.localize.map_class,
            device=STUDY.localize.device,
            **STUDY.probe.model_dump(exclude={"shuffled"}),
        ),
        key=run_key,
        seen=MASKS,
        tiles=f"--tiles {R}/tile/{DATASET}" if PLAN.by_slide else "",
        shuffled=lambda w, input: f"--shuffled {input.shuffled}" if input.get("shuffled") else "",
    shell:
        "wsol probe --model {input.model} --manifest {input.manifest} --masks {input.masks} --key {params.key:q} {params.tiles} {params.shuffled}"
        " --settings {params.settings:q} --threads {threads} --out {output.probe} 2> {log}"


# What a careful reviewer would ask of the numbers. The findings stand on the page; they do not stop the study.
rule audit:
    input:
        scores=scores(),
        manifest=rules.prepare.output.manifest,
        masks=rules.prepare.output.masks,
    output:
        audit=report(f"{R}/audit/{DATASET}/audit.json", caption="../report/audit.rst", category="Study"),
    log:
        f"logs/audit/{DATASET}.log",
    benchmark:
        f"{R}/benchmark/audit/{DATASET}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        results=lambda w: R,
        scores=lambda w, input: " ".join(f"--scores {path}" for path in input.scores),
        ledger=f"--ledger {STUDY.evaluate.ledger}" if STUDY.evaluate.ledger else "",
    shell:
        "wsol audit --manifest {input.manifest} --masks {input.masks} --results {params.results} {params.scores} {params.ledger} --out {output.audit} 2> {log}"
