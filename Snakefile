# Entry point: `snakemake --cores 2` runs the demo; `--configfile configs/glas.yaml` runs another study.
include: "workflow/Snakefile"


# An included file never sets the default target, so the root names it.
rule default:
    default_target: True
    input:
        rules.all.input,
    localrule: True
