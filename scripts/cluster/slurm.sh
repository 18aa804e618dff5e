#!/usr/bin/env bash
# A SLURM job that goes on until the run is finished, with or without a container:
#
#     sbatch --nodes 4 --gpus-per-node 8 scripts/cluster/slurm.sh --hps ffhq256 --alpha_T 1.0
#     CONTAINER=pyxis IMAGE=/images/vdvae_lr.sqsh DATA=/data/ffhq256 sbatch --nodes 4 --gpus-per-node 8 scripts/cluster/slurm.sh
#
# SLURM warns each process five minutes before the time limit (SIGUSR1) and before a preemption (SIGTERM). Then the run
# finishes its step, saves, and ends with code 75. This script puts the job back into the queue, and the same command
# goes on. Any other failure ends the job, because a person has to look at it first.
#SBATCH --job-name=vdvae_lr
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

# The same variables in every script. Words after the script go to train.py unchanged.
HPS=${HPS-}            # preset, as --hps
ALPHA_T=${ALPHA_T-}    # weight of Latent Reconstruction, as --alpha_T
DATA=${DATA-}          # folder of the data set, as --data_root
RUNS=${RUNS-$PWD/runs} # folder of runs, as --save_dir, on storage that every node sees
PYTHON=${PYTHON-python}
export HF_HOME=${HF_HOME-$HOME/.cache/huggingface} # downloaded weights (vdvae-lr pull), where every node sees them
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE-1}          # compute nodes download nothing
export OMP_NUM_THREADS=${OMP_NUM_THREADS-1}        # as torchrun does: processes share a node's cores
train=(train.py ${HPS:+--hps "$HPS"} ${ALPHA_T:+--alpha_T "$ALPHA_T"} ${DATA:+--data_root "$DATA"}
    --save_dir "$RUNS" "$@")

CONTAINER=${CONTAINER-} # pyxis or apptainer; empty: no container
IMAGE=${IMAGE-}         # for pyxis a .sqsh file or REGISTRY#NAME:TAG, for apptainer a .sif file

refuse() {
    echo "error: $1" >&2
    exit 2
}

# The mounts. Folders must exist and have absolute paths, since they have the same paths inside the container.
mounted() {
    mkdir -p "$RUNS" "$HF_HOME" || refuse "'$RUNS' or '$HF_HOME' cannot be made; set RUNS and HF_HOME."
    local folder
    for folder in "$RUNS" "$HF_HOME" ${DATA:+"$DATA"}; do
        [ "${folder:0:1}" = / ] || refuse "'$folder' must be an absolute path to be seen in the container."
        [ -d "$folder" ] || refuse "there is no folder '$folder'."
        echo "$folder:$folder"
    done | sort -u | paste -s -d ,
}

case $CONTAINER in
"") step=("$PYTHON") ;;
pyxis)
    mounts=$(mounted) || exit
    step=(--container-image="$IMAGE" --container-mounts="$mounts" --container-workdir=/opt/vdvae_lr
        --no-container-mount-home "--container-env=HF_HOME,HF_HUB_OFFLINE,OMP_NUM_THREADS" python)
    ;;
apptainer)
    mounts=$(mounted) || exit
    # SLURM signals every process of a step, and apptainer passes its signals on. So the run would get each signal
    # twice, and end unsaved at the second. The shell in between catches apptainer's.
    step=(apptainer exec --nv --bind "$mounts" --pwd /opt/vdvae_lr "$IMAGE"
        bash -c 'trap : USR1 TERM; "$@"; exit $?' bash python)
    ;;
*) refuse "CONTAINER is '$CONTAINER'; it is empty, pyxis or apptainer." ;;
esac
[ -z "$CONTAINER" ] || [ -n "$IMAGE" ] || refuse "CONTAINER is $CONTAINER, but IMAGE names no image."

# srun reads the cores of a task only from its own variable. --wait leaves every process a minute to end by itself.
[ -z "${SLURM_CPUS_PER_TASK-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --wait=60 "${step[@]}" "${train[@]}"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
