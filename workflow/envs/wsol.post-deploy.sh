#!/usr/bin/env bash
# Snakemake runs this in the new environment, in the folder that it was started in.
set -euo pipefail
pip install -c constraints.txt .
