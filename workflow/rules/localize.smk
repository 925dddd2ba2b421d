rule localize:
    input:
        model=f"{R}/train/{RUN}/{{checkpoint}}.safetensors",
        recipe=f"{R}/train/{RUN}/{{checkpoint}}.json",
        manifest=rules.prepare.output.manifest,
        tiles=unit_tiles,
    output:
        maps=made(f"{R}/localize/{MAPS}", "{}.h5"),
    log:
        f"logs/localize/{MAPS}-{UNIT_LOG}.log",
    benchmark:
        f"{R}/benchmark/localize/{MAPS}/{UNIT_LOG}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(STUDY.localize.memory_mb + 1500),
        runtime=growing(120, 15),
        gpu=gpus(STUDY.localize.device),
        lane=1,
    params:
        each=each,
        out=target(f"{R}/localize/{MAPS}", "{}.h5"),
        settings=set_settings,
    shell:
        "wsol {params.each}localize --model {input.model} --manifest {input.manifest} --fold {wildcards.fold} --split {wildcards.split} "
        + ONE_SLIDE
        + " --settings {params.settings:q} --threads {threads} --out {params.out} 2> {log}"


# The maps that need no training are the model `floors`: same files, same evaluation, a row under every table.
rule fit_floors:
    input:
        manifest=rules.prepare.output.manifest,
        masks=rules.prepare.output.masks,
        tiles=lambda w: tiled(w.fold, "valpx"),
    output:
        model=f"{R}/train/{FLOOR_RUN}/none.json",
    log:
        f"logs/train/{FLOOR_RUN}.log",
    benchmark:
        f"{R}/benchmark/train/{FLOOR_RUN}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
    params:
        seen=MASKS,
        mpp=STUDY.evaluate.floors_mpp,
        tiles=f"--tiles {R}/tile/{DATASET}" if PLAN.by_slide else "",
    shell:
        "wsol fit-floors --manifest {input.manifest} --masks {input.masks} {params.tiles} --fold {wildcards.fold} --mpp {params.mpp} --out {output.model} 2> {log}"


rule draw_floors:
    input:
        model=rules.fit_floors.output.model,
        manifest=rules.prepare.output.manifest,
        tiles=unit_tiles,
    output:
        maps=made(f"{R}/localize/{FLOOR_RUN}/none/floors", "{}.h5"),
    log:
        f"logs/localize/{FLOOR_RUN}-{UNIT_LOG}.log",
    benchmark:
        f"{R}/benchmark/localize/{FLOOR_RUN}/none/floors/{UNIT_LOG}.tsv"
    conda:
        "../envs/wsol.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(30, 5),
        lane=1,
    params:
        each=each,
        out=target(f"{R}/localize/{FLOOR_RUN}/none/floors", "{}.h5"),
        mpp=STUDY.evaluate.floors_mpp,
    shell:
        "wsol {params.each}draw-floors --model {input.model} --manifest {input.manifest} --fold {wildcards.fold} --split {wildcards.split} "
        + ONE_SLIDE
        + " --seed {wildcards.seed} --mpp {params.mpp} --out {params.out} 2> {log}"


ruleorder: draw_floors > localize


if PLAN.by_slide:

    rule gather_maps:
        input:
            lambda w: lots_made(made(f"{R}/localize/{MAPS}", "{}.h5").format(**w, lot="{lot}"), PLAN.part(int(w.fold), w.split)),
        output:
            touch(f"{R}/localize/{MAPS}/{{split}}.done"),
        log:
            f"logs/localize/{MAPS}-{{split}}.done.log",
        benchmark:
            f"{R}/benchmark/localize/{MAPS}/{{split}}.done.tsv"
        localrule: True
        conda:
            "../envs/wsol.yaml"
        shell:
            "echo drawn > {log}"
