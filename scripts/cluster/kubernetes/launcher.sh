#!/usr/bin/env bash
# The launcher of an MPIJob (scripts/cluster/kubernetes/mpijob.yaml): waits for the workers, and starts the run on them
# until it is done.
#
# When a worker is preempted, the run saves and ends with code 75 (stop_worker.sh). The worker gets a successor, and this
# script starts the run again in the same pod. So only failures, and the launcher's own preemption, count in the job's
# backoffLimit.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit
export HOSTFILE=${HOSTFILE-/etc/mpi/hostfile}
ASK_EVERY_S=${ASK_EVERY_S-5}
LEAVING_S=${LEAVING_S-30} # seconds that a leaving worker still answers after its last process has ended

told=
job=
trap 'told=1; [ -z "$job" ] || kill -TERM "$job" 2>/dev/null' TERM

finish() { # wait for the job and return its code; a signal ends the wait, but not the job
    wait "$job"
    while kill -0 "$job" 2>/dev/null; do wait "$job"; done
    wait "$job"
}

answers() {
    ssh -o BatchMode=yes -o ConnectTimeout=5 "$1" true 2>/dev/null
}

wait_for_workers() {
    local host
    while read -r host _; do
        until [ -n "$told" ] || answers "$host" </dev/null; do
            echo "waiting for $host"
            sleep "$ASK_EVERY_S"
        done
    done <"$HOSTFILE"
}

while wait_for_workers && [ -z "$told" ]; do
    scripts/cluster/mpiexec.sh "$@" &
    job=$!
    [ -z "$told" ] || kill -TERM "$job" # the signal came before there was a job to pass it on to
    finish
    code=$?
    job=
    [ "$code" -eq 75 ] && [ -z "$told" ] || exit "$code"
    echo "the run was told to stop, and saved; it goes on when all workers are there"
    sleep "$LEAVING_S"
done
exit 75
