#!/usr/bin/env bash
# A pod of a PyTorchJob (scripts/cluster/kubernetes/pytorchjob.yaml): one process for each card, and one exit code for all
# of them.
#
# The operator restarts a pod that ends with 128 or more, and fails the job at any other code. So this script ends with
#   143  if a process was told to stop and saved (75), or lost a process of another pod (69): the run goes on
#   the code of the process that failed, or 1 if it was killed (for its memory, say): a person has to look
# torchrun always ends with 1, and leaves its processes 30 seconds to save in.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit

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

# From the operator: the pod's number (RANK), all processes (WORLD_SIZE), and those of a pod (PET_NPROC_PER_NODE).
pod=${RANK:?the operator sets it}
cards=${PET_NPROC_PER_NODE:?set nprocPerNode in the manifest}
export WORLD_SIZE=${WORLD_SIZE:?the operator sets it} LOCAL_WORLD_SIZE=$cards

WAIT_S=${WAIT_S-60} # as srun's --wait: how long the others may go on after a process has failed

told=
processes=()
trap 'told=1; kill -TERM "${processes[@]}" 2>/dev/null' TERM
for ((card = 0; card < cards; card++)); do
    RANK=$((pod * cards + card)) LOCAL_RANK=$card "$PYTHON" "${train[@]}" &
    processes+=($!)
done

again=
failed=
judge() { # what one process's exit code means for the pod
    case $1 in
    0) ;;
    69 | 75) again=1 ;;
    143) if [ -n "$told" ]; then again=1; else failed=${failed:-1}; fi ;; # the signal came before it listened
    *) failed=${failed:-$(($1 < 128 ? $1 : 1))} ;;
    esac
}

while [ "${#processes[@]}" -gt 0 ]; do
    sleep 0.5
    for card in "${!processes[@]}"; do
        if ! kill -0 "${processes[card]}" 2>/dev/null; then
            wait "${processes[card]}"
            judge $?
            unset "processes[card]"
        fi
    done
    [ -n "$failed" ] || SECONDS=0
    # Processes that wait for the failed one to come would wait for ten minutes.
    [ "$SECONDS" -lt "$WAIT_S" ] || kill -TERM "${processes[@]}" 2>/dev/null
done
[ -z "$failed" ] || exit "$failed"
[ -z "$again" ] || exit 143
