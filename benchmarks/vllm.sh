#!/usr/bin/env bash
# Start vLLM, measure the chain over it beside a bare client, and stop it; on a CPU or a GPU.
#
#   benchmarks/vllm.sh FOLDER [options of benchmarks.real]
#
# VLLM names the program (.venv-vllm/bin/vllm, which `make test-vllm` installs), VLLM_OPTIONS what
# it is started with, and PYTHON the interpreter that has this package.
set -euo pipefail
folder=$1
shift
root=http://127.0.0.1:${PORT:-8733}
# shellcheck disable=SC2086  # several options
HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-3} \
    "${VLLM:-.venv-vllm/bin/vllm}" serve "$folder" --host 127.0.0.1 --port "${PORT:-8733}" \
    --max-model-len 4096 ${VLLM_OPTIONS:-} > "${LOG:-runs/vllm.log}" 2>&1 &
server=$!
trap 'kill $server; wait $server || true' EXIT
until curl --silent --fail "$root/health" > /dev/null; do
    kill -0 $server || { tail "${LOG:-runs/vllm.log}"; exit 1; }
    sleep 2
done
"${PYTHON:-.venv/bin/python}" -m benchmarks.real --folder "$folder" --vllm "$root" \
    --vllm-pid $server --ways "bare vLLM" vllm "$@"
