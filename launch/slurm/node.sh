#!/usr/bin/env bash
# What train.sbatch starts once on every node: node.sh FOLDER [key=value …]
#
# torchrun, its rendezvous on the job's first node, under relaunch.sh. RANKS_PER_NODE is one a GPU unless it is set. A
# node is reached at Slurm's NodeAddr; where training has a network of its own, RENDEZVOUS_HOST names the first node in
# it, and NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME the interface of every node.
set -euo pipefail

address_of() { scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'; }

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
host=${RENDEZVOUS_HOST:-$(address_of "$first")}
port=$((20000 + SLURM_JOB_ID % 20000))
[[ ! -d .venv/bin ]] || PATH=$PWD/.venv/bin:$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec bash launch/relaunch.sh "$1" torchrun \
    --nnodes="$SLURM_NNODES" --nproc-per-node="${RANKS_PER_NODE:-gpu}" --max-restarts=3 \
    --rdzv-backend=c10d --rdzv-endpoint="$host:$port" --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
    --rdzv-conf="is_host=$((SLURM_NODEID == 0))" --local-addr="$(address_of "$SLURMD_NODENAME")" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    launch/train.py folder="$1" "${@:2}"
