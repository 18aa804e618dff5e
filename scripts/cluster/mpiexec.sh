#!/usr/bin/env bash
# Start a run on the machines of a hostfile with Open MPI, from any of them:
#
#     HOSTFILE=hosts scripts/cluster/mpiexec.sh --hps ffhq256 --alpha_T 1.0      # scripts/cluster/hostfile.example shows one
#
# This checkout and PYTHON must be at the same path on every machine, and this machine must reach the others by ssh
# without a password. To stop the run, send SIGTERM or SIGUSR1 to this script. The run saves, the code is 75, and the
# same command goes on.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

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

HOSTFILE=${HOSTFILE-hostfile} # one line for each machine: NAME slots=CARDS
PROCESSES=${PROCESSES-}       # number of processes; empty: one for every slot

refuse() {
    echo "error: $1" >&2
    exit 2
}

[ -f "$HOSTFILE" ] ||
    refuse "there is no hostfile '$HOSTFILE'; write one like scripts/cluster/hostfile.example, and name it with HOSTFILE."
python=$(command -v "$PYTHON") || refuse "there is no '$PYTHON'; name a Python with PYTHON=/path/to/python."
mpiexec=$(dirname "$python")/mpiexec # from the same environment: mpi4py and mpiexec must belong to one Open MPI
[ -x "$mpiexec" ] || mpiexec=$(command -v mpiexec) || refuse "there is no mpiexec; pip install 'vdvae_lr[mpi]'."

# Every process that ends well makes this file (scripts/cluster/mpi_train.py says why). All must see its folder.
mkdir -p "$RUNS" || refuse "'$RUNS' cannot be made; set RUNS."
DONE_FILE=$(mktemp --dry-run "$RUNS/.done-XXXXXXXXXX")
export DONE_FILE
train[0]=scripts/cluster/mpi_train.py

# ssh does not pass these on to the other machines.
passed=()
for name in DONE_FILE OMP_NUM_THREADS ${!HF_@} ${!VDVAE_LR_@} ${!NCCL_@}; do
    passed+=(-x "$name")
done

# Do not bind to cores: the processes that read images would share one core with the process they read for.
"$mpiexec" --hostfile "$HOSTFILE" ${PROCESSES:+-n "$PROCESSES"} --bind-to none "${passed[@]}" "$python" "${train[@]}" &
job=$!
# At SIGTERM Open MPI leaves its processes a second, too little to save in. It only passes SIGUSR1 on.
trap 'kill -USR1 "$job" 2>/dev/null' TERM USR1
wait "$job"
while kill -0 "$job" 2>/dev/null; do wait "$job"; done # a signal ends this wait, but not the job
wait "$job"
code=$?

if [ "$code" -eq 0 ] && [ ! -e "$DONE_FILE" ]; then
    echo "error: mpiexec lost a machine; run the same command again to go on from the last checkpoint." >&2
    code=69
fi
rm -f "$DONE_FILE"
exit "$code"
