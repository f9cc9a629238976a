#!/bin/sh
# Start a run by the event binding of a service, wait for it, print what each task did, and end as the run ended:
# 0 it succeeded, 1 it failed or was never started. Needs curl 7.76 or newer, jq, and these variables:
#   ARGO_SERVER  address of Argo Server       ARGO_TOKEN  token of the account slipway-ci-<service>
#   NAMESPACE    namespace of the workflow    SERVICE     name of the service
#   RUN_ID       1 to 20 lower-case letters, digits and dashes, one for each run that is wanted
# and, if the run shall differ from the document, IMAGE and MODEL_REVISION; REASON goes into the title of the run.
set -eu

name="$SERVICE-$RUN_ID"
pause="${PAUSE:-10}" # seconds between two looks
looks_in_vain=12     # looks without an answer after which the job gives up

ask() {
  curl --silent --show-error --fail-with-body --retry 3 --max-time 30 \
    --header "Authorization: Bearer $ARGO_TOKEN" --header "Content-Type: application/json" "$@"
}

# jq writes the JSON, so that no value can leave its place; the selector of the binding refuses what has a wrong shape.
payload=$(jq --null-input --arg id "$RUN_ID" --arg image "${IMAGE:-}" --arg revision "${MODEL_REVISION:-}" \
  --arg reason "${REASON:-ci}" '{"run-id": $id, image: $image, "model-revision": $revision, reason: $reason}')

# The answer names no run and is the same whether the binding took the payload or not. A lost one can be asked for again:
# the run has a name of its own, and there is only one of that name.
if ! ask --data "$payload" "$ARGO_SERVER/api/v1/events/$NAMESPACE/$SERVICE"; then
  echo "Argo Server did not take the event well; looking for run $name all the same"
fi

last="" missed=0
while :; do
  if run=$(ask "$ARGO_SERVER/api/v1/workflows/$NAMESPACE/$name" 2>&1); then
    missed=0
    state=$(printf '%s' "$run" | jq --raw-output '.status | "\(.phase // "Pending") \(.progress // "") \(.message // "")"')
    [ "$state" = "$last" ] || echo "$name: $state"
    last=$state
    case $state in Succeeded* | Failed* | Error*) break ;; esac
  else
    missed=$((missed + 1))
    if [ "$missed" -ge "$looks_in_vain" ]; then
      echo "run $name cannot be seen: $run"
      echo "The selector of the event binding may have refused the payload: kubectl describe workfloweventbinding $SERVICE"
      exit 1
    fi
  fi
  sleep "$pause"
done

# Argo keeps one node for each task and one for each of its attempts; the last attempt says why a task failed. A task of
# the exit handler has one attempt, and one node.
printf '%s' "$run" | jq --raw-output '
  [.status.nodes // {} | .[]] as $nodes
  | $nodes | map(select(.type == "Retry" or .type == "Skipped" or (.name | contains(".onExit["))))
  | map(select(.type != "StepGroup")) | sort_by(.startedAt)[]
  | . as $task
  | ($nodes | map(select(.type == "Pod" and (.name | startswith($task.name + "(")))) | sort_by(.startedAt) | last // $task) as $attempt
  | ([$attempt.outputs.parameters // [] | .[] | select(.name == "recap") | .value] | first // "") as $recap
  | (if .phase == "Failed" or .phase == "Error" then $attempt.message // .message // "" else $recap end) as $words
  | "  \(.displayName): \(.phase)  \($words)"'

case $last in Succeeded*) exit 0 ;; *) exit 1 ;; esac
