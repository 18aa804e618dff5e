#!/usr/bin/env bash
# A pod of a PyTorchJob (scripts/cluster/kubernetes/pytorchjob.yaml): one process a card, and one exit code for all of them.
#
# The operator restarts a pod that ends with 128 or more and fails the job at any other code, so this ends with
#   143  where a process was told to stop and saved (75), or lost one on another pod (69): the run goes on
#   the code of the process that failed, and 1 for one that was killed, for memory say: a person has to look
# torchrun would do neither: it ends with 1 whatever its processes say, and leaves them 30 seconds to save in.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit

# Variables, the same in every script; words after the script go to train.py as they are.
HPS=${HPS-}            # preset, as --hps
ALPHA_T=${ALPHA_T-}    # weight of Latent Reconstruction, as --alpha_T
DATA=${DATA-}          # folder of the data set, as --data_root
RUNS=${RUNS-$PWD/runs} # folder of runs, as --save_dir, on storage that every node sees
PYTHON=${PYTHON-python}
export HF_HOME=${HF_HOME-$HOME/.cache/huggingface} # downloaded weights (vdvae-lr pull), where every node sees them
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE-1}          # compute nodes download nothing
export OMP_NUM_THREADS=${OMP_NUM_THREADS-1}        # as torchrun: processes share a node's cores
train=(train.py ${HPS:+--hps "$HPS"} ${ALPHA_T:+--alpha_T "$ALPHA_T"} ${DATA:+--data_root "$DATA"}
    --save_dir "$RUNS" "$@")

# The operator numbers pods (RANK), and counts processes (WORLD_SIZE; PET_NPROC_PER_NODE of each pod).
pod=${RANK:?the operator sets it}
cards=${PET_NPROC_PER_NODE:?set nprocPerNode in the manifest}
export WORLD_SIZE=${WORLD_SIZE:?the operator sets it} LOCAL_WORLD_SIZE=$cards

WAIT_S=${WAIT_S-60} # as srun's --wait: once a process failed, so long for the others to say why and end

told=
processes=()
trap 'told=1; kill -TERM "${processes[@]}" 2>/dev/null' TERM
for ((card = 0; card < cards; card++)); do
    RANK=$((pod * cards + card)) LOCAL_RANK=$card "$PYTHON" "${train[@]}" &
    processes+=($!)
done

again=
failed=
judge() { # one process's exit code
    case $1 in
    0) ;;
    69 | 75) again=1 ;;
    143) if [ -n "$told" ]; then again=1; else failed=${failed:-1}; fi ;; # told before it listened
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
    # those that wait for the failed one to come would do so for ten minutes
    [ "$SECONDS" -lt "$WAIT_S" ] || kill -TERM "${processes[@]}" 2>/dev/null
done
[ -z "$failed" ] || exit "$failed"
[ -z "$again" ] || exit 143
