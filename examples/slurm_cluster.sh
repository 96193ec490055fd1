#!/bin/bash
# Run the pipeline on several machines, with runtime.nodes: 2 in params.yaml: sbatch examples/slurm_cluster.sh
# Submitted again after the time limit, it resumes: Slurm's SIGTERM makes training save its state.
#SBATCH --job-name=meal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --signal=TERM@120
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun python -m meal cluster "$first:29400" # srun sets SLURM_NODEID, the machine's number
