#!/usr/bin/env bash
# The preStop hook of an MPIJob's worker pod: makes the run save before the pod's sshd ends with all that it started.
#
# If the launcher is told to stop at the same moment, its signal reaches the same processes through mpiexec, and at a
# second signal they would end unsaved. So this waits, and then signals only those that still listen.
#
#     stop_worker.sh [PID...]    signals these processes; without any, every process of a run in this pod
set -uo pipefail
BEFORE_S=${BEFORE_S-10} # longer than the launcher's signal needs, shorter than terminationGracePeriodSeconds

of_this_pod() {
    local folder
    for folder in /proc/[0-9]*; do
        if tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | grep --quiet 'python.* scripts/cluster/mpi_train\.py '; then
            echo "${folder#/proc/}"
        fi
    done
}

listens() { # whether a run catches SIGUSR1 (number 10: the tenth bit), as it does until its first signal
    local caught
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null)
    (((0x${caught:-0} >> 9) & 1))
}

sleep "$BEFORE_S"
mapfile -t processes < <(if [ "$#" -gt 0 ]; then printf '%s\n' "$@"; else of_this_pod; fi)
for process in "${processes[@]}"; do
    if listens "$process"; then kill -USR1 "$process"; fi
done
for process in "${processes[@]}"; do
    while kill -0 "$process" 2>/dev/null; do sleep 1; done
done
