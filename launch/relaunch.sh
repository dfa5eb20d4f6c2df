#!/usr/bin/env bash
# Start a run, and start it again until it is finished: relaunch.sh FOLDER COMMAND…
#
#   launch/relaunch.sh runs/NAME torchrun --nnodes=1:4 --max-restarts=10 … launch/train.py folder=runs/NAME …
#
# For each node of a run whose nodes may come and go, and where no scheduler starts a job again. torchrun's exit code
# does not say how a run has ended; FINISHED.json in its folder does. SIGTERM, SIGUSR1 and SIGINT are handed on, and end
# the script with 75 when the run has saved and stopped (STOPPED.json). A run that another node's launcher has stopped
# goes on here. Five starts in a row that bring no newer checkpoint end it with 1 (RELAUNCH_TRIES), with a pause after
# each that grows from 1 s to a minute.
set -uo pipefail

if (($# < 2)); then
    echo "usage: relaunch.sh FOLDER COMMAND…" >&2
    exit 2
fi
folder=$1
shift
tries=${RELAUNCH_TRIES:-5}
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else torchrun breaks its own restarts

asked='' child=''
hand_on() {
    asked=$1
    [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null
}
for name in TERM USR1 INT; do
    # shellcheck disable=SC2064  # the name of now is meant
    trap "hand_on $name" "$name"
done

end_of_run() { stat -c '%i %y' -- "$folder/FINISHED.json" 2>/dev/null; }
newest() { find "$folder/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null | sort | tail -n 1; }

earlier=$(end_of_run) # of a run that is to be made longer, say
vain=0
while true; do
    saved=$(newest)
    "$@" &
    child=$!
    while kill -0 "$child" 2>/dev/null; do wait "$child"; done
    child=''
    if [[ $(end_of_run) != "$earlier" ]]; then
        exit 0
    elif [[ -n $asked ]]; then
        [[ -e $folder/STOPPED.json ]] || echo "relaunch.sh: ended by SIG$asked before the run had saved its last step" >&2
        exit 75
    fi
    if [[ $(newest) == "$saved" ]]; then vain=$((vain + 1)); else vain=0; fi
    if ((vain >= tries)); then
        echo "relaunch.sh: given up: $tries starts in a row brought no newer checkpoint than '$saved'" >&2
        exit 1
    fi
    pause=$((2 ** vain < 60 ? 2 ** vain : 60))
    echo "relaunch.sh: the run is not finished; it starts again in $pause s" >&2
    sleep "$pause" &
    child=$!
    wait "$child"
    child=''
    [[ -z $asked ]] || exit 75
done
