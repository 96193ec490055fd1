#!/bin/bash
# Compute the cache of a teacher in parts, then join them: sbatch --wait examples/slurm_cache.sh vgg && dvc repro cache@vgg
# The tasks share the project's folder. Each can be repeated: finished parts are not computed again.
#SBATCH --job-name=cache
#SBATCH --array=1-8
#SBATCH --gpus-per-task=1
python -m stages.cache "$1" --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
