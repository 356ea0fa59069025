#!/usr/bin/env bash
# Submit a run to the Ray cluster at RAY_API_SERVER_ADDRESS (http://127.0.0.1:8265 by default).
#
#   jobs/submit.sh [--dry-run] [OPTIONS OF ray job submit --] INPUT OUTPUT [OPTIONS OF amg run]
#
#   jobs/submit.sh s3://bucket/photos s3://bucket/masks --workers 16 \
#     --config jobs/configs/vit_h.yaml --weights s3://bucket/sam_vit_h_4b8939.pth
#   jobs/submit.sh --no-wait -- s3://bucket/photos s3://bucket/try --config jobs/configs/tiny.yaml
#
# Prints the command before it runs it; with --dry-run it only prints it. The same submission again
# resumes. Exits with 1 if the job failed: its log ends with the run's own exit code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

is_dry_run=false
if [[ ${1-} == --dry-run ]]; then
    is_dry_run=true
    shift
fi

# The words before the first one that is two dashes, if there is one, are Ray's.
ray_options=()
for ((position = 1; position <= $#; position++)); do
    if [[ ${!position} == -- ]]; then
        ray_options=("${@:1:position-1}")
        shift "${position}"
        break
    fi
done

if (($# < 2)); then
    echo "usage: jobs/submit.sh [--dry-run] [RAY OPTIONS --] INPUT OUTPUT [OPTIONS]" >&2
    exit 2
fi

# ${array[@]+...}: bash 4.3 and older, macOS among them, take an empty array for an unset variable.
command=(ray job submit --working-dir . --runtime-env cluster/runtime-env.yaml
    ${ray_options[@]+"${ray_options[@]}"} -- python jobs/generate_masks.py "$@")

printf '%q ' "${command[@]}" | sed 's/ $//'
echo
if ! "${is_dry_run}"; then
    exec "${command[@]}"
fi
