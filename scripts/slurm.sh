#!/usr/bin/env bash
# One SLURM job that goes on until the run is finished:
#
#     sbatch --nodes 4 --gpus-per-node 8 scripts/slurm.sh --hps ffhq256 --alpha_T 1.0
#
# SLURM warns each process five minutes before the time limit (SIGUSR1) and before a preemption (SIGTERM). The run then
# finishes its step, saves, and ends with code 75; this script puts the job back into the queue, and the same command
# goes on. Any other failure stays a failure: look at it first.
#SBATCH --job-name=vdvae_lr
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

srun --wait=60 "${PYTHON:-python}" train.py "$@"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
