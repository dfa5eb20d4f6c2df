#!/usr/bin/env bash
# What a rented machine runs when it starts, until the run is finished; on every node alike:
#
#   FIRST=10.0.0.4 NODES=1:4 FOLDER=/shared/runs/vit_b bash launch/cloud/node.sh recipe=webface42m_pfc03_vit_b data.path=…
#
#   FIRST    address of the node that has the rendezvous, and stays as long as the run; its port is PORT, 29400
#   NODES    how many there are, or MIN:MAX where they may come and go
#   FOLDER   of the run, one for all nodes
#   RANKS    of this node; one a GPU unless it is set
#
# A provider that takes a machine back warns it by SIGTERM, or by a page that its own agent watches and turns into one:
# the run saves, and this script ends with 75. The keys are of `arcdist train`. A unit of systemd starts it with
# KillMode=mixed and TimeoutStopSec=300. It sets arcdist up first, and trains only on a machine that the doctor calls fit.
set -euo pipefail
: "${FIRST:?address of the first node}" "${NODES:?number of nodes, or MIN:MAX}" "${FOLDER:?folder of the run}"
cd "$(dirname "$0")/../.."

make setup
PATH=$PWD/.venv/bin:$PATH
mkdir -p "$FOLDER"
arcdist doctor folder="$FOLDER"

# The address by which the first node is reached is the one by which the others reach this one.
own=$(ip -oneline route get "$FIRST" | sed -n 's/.* src \([^ ]*\).*/\1/p')
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec bash launch/relaunch.sh "$FOLDER" torchrun \
    --nnodes="$NODES" --nproc-per-node="${RANKS:-gpu}" --max-restarts=100 \
    --rdzv-backend=c10d --rdzv-endpoint="$FIRST:${PORT:-29400}" --rdzv-id="$(basename "$FOLDER")" \
    --rdzv-conf="is_host=$([[ $own == "$FIRST" ]] && echo 1 || echo 0)" --local-addr="$own" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    launch/train.py folder="$FOLDER" "$@"
