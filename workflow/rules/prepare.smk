rule prepare:
    input:
        sheet=[str(path) for path in FILES["sheet"]],
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
        files="" if PLAN.by_slide else state(FILES["path"]),
    shell:
        "wsol prepare --settings {params.settings:q} --manifest {output.manifest} --masks {output.masks} --workers {threads} 2> {log}"


if PLAN.by_slide:

    TILED = f"{R}/tile/{DATASET}.lots/{{lot}}" if LOTS else f"{R}/tile/{DATASET}/{{lot}}.parquet"

    rule tile:
        input:
            manifest=rules.prepare.output.manifest,
            masks=rules.prepare.output.masks if STUDY.tile.labels == "annotation" else [],
        output:
            TILED if LOTS else [TILED, *(TILED.replace(".parquet", ending) for ending in (".json", ".png"))],
        log:
            f"logs/tile/{DATASET}/{{lot}}.log",
        benchmark:
            f"{R}/benchmark/tile/{DATASET}/{{lot}}.tsv"
        conda:
            "../envs/wsol.yaml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(90, 5),
            lane=1,
        params:
            settings=settings(**STUDY.tile.model_dump()),
            file=slides_state,
            each=lambda w, output: lot_words(CUT, w.lot, output[0]) if LOTS else "",
            slide=lambda w: SLIDE.format(**w),
            masks=f"--masks {R}/prepare/{DATASET}/masks.parquet" if STUDY.tile.labels == "annotation" else "",
        shell:
            "wsol {params.each}tile --manifest {input.manifest} {params.masks} --slide {params.slide} --settings {params.settings:q}"
            + f" --out {R}/tile/{DATASET}/{{params.slide}}.parquet 2> {{log}}"

    rule gather_tiles:
        input:
            lambda w: lots_made(TILED, PLAN.part(int(w.fold), w.part), CUT),
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
