rule train:
    input:
        manifest=rules.prepare.output.manifest,
        tiles=lambda w: tiled(w.fold, "training"),
        parents=parent_checkpoints,
        masks=training_masks,
    output:
        checkpoints=expand(f"{R}/train/{RUN}/{{checkpoint}}.safetensors", checkpoint=STUDY.checkpoints, allow_missing=True),
        recipes=expand(f"{R}/train/{RUN}/{{checkpoint}}.json", checkpoint=STUDY.checkpoints, allow_missing=True),
        history=f"{R}/train/{RUN}/history.csv",
        record=f"{R}/train/{RUN}/run.json",
    log:
        f"logs/train/{RUN}.log",
    benchmark:
        f"{R}/benchmark/train/{RUN}.tsv"
    wildcard_constraints:
        model=one_of(set(STUDY.models) - set(ON_VALPX)),
    conda:
        "../envs/wsol.yaml"
    threads: processes
    resources:
        mem_mb=training_mb,
        runtime=growing(1440),
        gpu=lambda w: gpus(STUDY.training(w.model)["device"], processes(w)),
    params:
        start=torchrun,
        processes=processes,
        settings=run_settings,
        keep=lambda w: ",".join(STUDY.kept(w.model)),
        parents=lambda w, input: " ".join(f"--parent {path}" for path in input.parents),
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        seen=lambda w, input: MASKS if input.get("masks") else "",
        tiles=f"--tiles {R}/tile/{DATASET}" if PLAN.by_slide else "",
        selection=selected_class(),
        out=lambda w, output: os.path.dirname(output.history),
    shell:
        "{params.start}wsol train --manifest {input.manifest} {params.tiles} {params.parents} {params.masks} {params.selection} --fold {wildcards.fold} --seed {wildcards.seed}"
        " --settings {params.settings:q} --keep {params.keep} --threads $((({threads} + {params.processes} - 1) / {params.processes})) --out {params.out} 2> {log}"


if ON_VALPX:

    use rule train as train_on_valpx with:
        output:
            checkpoints=expand(
                f"{R}/train/{RUN}/{{checkpoint}}.safetensors", checkpoint=STUDY.kept(ON_VALPX[0]), allow_missing=True
            ),
            recipes=expand(f"{R}/train/{RUN}/{{checkpoint}}.json", checkpoint=STUDY.kept(ON_VALPX[0]), allow_missing=True),
            history=f"{R}/train/{RUN}/history.csv",
            record=f"{R}/train/{RUN}/run.json",
        wildcard_constraints:
            model=one_of(ON_VALPX),
