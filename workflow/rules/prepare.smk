rule prepare:
    output:
        manifest=f"{R}/prepare/{DATASET}/manifest.parquet",
        masks=f"{R}/prepare/{DATASET}/masks.parquet",
    log:
        f"logs/prepare/{DATASET}.log",
    benchmark:
        f"{R}/benchmark/prepare/{DATASET}.tsv"
    conda:
        "../envs/wsol.yaml"
    threads: 8 if STUDY.prepare.source == "phantom" else 1  # the only source that draws its slides
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        settings=settings(**{**STUDY.prepare.model_dump(), "options": source_options(STUDY)}),
    shell:
        "wsol prepare --settings {params.settings:q} --manifest {output.manifest} --masks {output.masks} --workers {threads} 2> {log}"


if PLAN.by_slide:

    rule tile:
        input:
            manifest=rules.prepare.output.manifest,
            masks=rules.prepare.output.masks if STUDY.tile.labels == "annotation" else [],
        output:
            table=f"{R}/tile/{DATASET}/{{slide}}.parquet",
            status=f"{R}/tile/{DATASET}/{{slide}}.json",
            thumbnail=f"{R}/tile/{DATASET}/{{slide}}.png",
        log:
            f"logs/tile/{DATASET}/{{slide}}.log",
        benchmark:
            f"{R}/benchmark/tile/{DATASET}/{{slide}}.tsv"
        conda:
            "../envs/wsol.yaml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(90),
            lane=1,
        params:
            settings=settings(**STUDY.tile.model_dump()),
            masks=f"--masks {R}/prepare/{DATASET}/masks.parquet" if STUDY.tile.labels == "annotation" else "",
        shell:
            "wsol tile --manifest {input.manifest} {params.masks} --slide {wildcards.slide} --settings {params.settings:q} --out {output.table} 2> {log}"

    rule gather_tiles:
        input:
            lambda w: expand(f"{R}/tile/{DATASET}/{{slide}}.parquet", slide=PLAN.part(int(w.fold), w.part)),
        output:
            touch(f"{R}/tile/{DATASET}.done/fold{{fold}}-{{part}}"),
        log:
            f"logs/tile/{DATASET}.done/fold{{fold}}-{{part}}.log",
        benchmark:
            f"{R}/benchmark/tile/{DATASET}.done/fold{{fold}}-{{part}}.tsv"
        localrule: True
        conda:
            "../envs/wsol.yaml"
        shell:
            "echo tiled > {log}"
