#!/usr/bin/env bash
# Build an image without a Docker engine, by buildah, and see that it is fit: build.sh [cpu|cuda]
#
#   BASE     image that it stands on, as in docker/Dockerfile; "debian" makes one by debootstrap, where no registry of
#            images is in reach (needs root)
#   TORCH    how uv chooses torch's build; "" where UV_FIND_LINKS, a folder of wheels, has it
#
# SSL_CERT_FILE of the machine, where it is set, is what the build trusts.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-cpu}
image=localhost/arcdist:$target
scratch=$(mktemp -d)
trap 'rm -r -- "$scratch"' EXIT
isolated=(--isolation chroot)
options=(--format docker --layers --target "$target" --file docker/Dockerfile --tag "$image")

if [[ ${BASE:-} == debian ]]; then
    BASE=localhost/debian-python:bookworm
    if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$scratch/root"
        tar --create --gzip --file "$scratch/root.tgz" --directory "$scratch/root" .
        printf 'FROM scratch\nADD root.tgz /\n' >"$scratch/Dockerfile"
        buildah bud "${isolated[@]}" --format docker --tag "$BASE" "$scratch"
    fi
fi
[[ -z ${BASE:-} ]] || options+=(--build-arg "BASE=$BASE")
[[ -z ${TORCH+set} ]] || options+=(--build-arg "TORCH=$TORCH")

settings=()
if [[ -n ${SSL_CERT_FILE:-} ]]; then
    settings+=('system-certs = true')
    options+=(--volume "$SSL_CERT_FILE:/etc/ssl/certs/ca-certificates.crt:ro")
fi
if [[ -d ${UV_FIND_LINKS:-} ]]; then
    settings+=("find-links = ['$UV_FIND_LINKS']")
    options+=(--volume "$UV_FIND_LINKS:$UV_FIND_LINKS:ro")
fi
printf '%s\n' "${settings[@]}" >"$scratch/uv.toml"
chmod --recursive a+rX "$scratch"

buildah bud "${isolated[@]}" "${options[@]}" --volume "$scratch:/etc/uv:ro" .
container=$(buildah from "$image")
trap 'buildah rm "$container" >/dev/null; rm -r -- "$scratch"' EXIT
buildah run "${isolated[@]}" "$container" -- env GLOO_SOCKET_IFNAME=lo arcdist doctor device=cpu ranks=2
