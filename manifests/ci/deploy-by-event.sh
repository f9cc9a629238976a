#!/bin/sh
# Start a run by the event binding of a service, follow it, print the result of each task, and end with its result:
#   0   the release was promoted, or serves already (the task promote-release or nothing-changed succeeded)
#   10  a variable is wrong; nothing was sent
#   11  the run failed or was terminated, or Argo refused to start it
#   75  Argo Server gave no answer, or the run did not appear; the run may go on
# Needs curl 7.55 or newer, jq, and these variables:
#   ARGO_SERVER  Argo Server, as host:port or with https://   ARGO_TOKEN  token of the account slipway-ci-<service>
#   NAMESPACE    namespace of the workflow                    SERVICE     name of the service
#   RUN_ID       1 to 20 lower-case letters, digits and dashes, another one for each run
# and, for a run that differs from the document, IMAGE and MODEL_REVISION: later runs, the schedule too, keep them until the
# document changes or the value `document` resets them. REASON becomes part of the title of the run.
set -eu

pause="${PAUSE:-10}" # seconds between two polls
most_missed=12       # polls in a row without an answer
most_absent=12       # polls in a row in which there is no such run

end() {
  code=$1
  shift
  printf '%s\n' "$*" >&2
  exit "$code"
}

check() { # NAME VALUE PATTERN CHARACTERS
  if [ -z "$2" ] || { [ "$(printf '%s.' "$2" | wc -l)" -eq 0 ] && printf '%s\n' "$2" | grep -Eqx -- "$3"; }; then return; fi
  outside=$(printf '%s' "$2" | tr -d "$4" | jq --raw-input --slurp .)
  end 10 "$1: found $(printf '%s' "$2" | jq --raw-input --slurp .), expected $3; characters that are not allowed: $outside"
}

for name in ARGO_SERVER ARGO_TOKEN NAMESPACE SERVICE RUN_ID; do
  eval "value=\${$name:-}"
  # shellcheck disable=SC2154  # eval sets it
  [ -n "$value" ] || end 10 "the variable $name is not set"
done
check RUN_ID "$RUN_ID" '[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?' 'a-z0-9-'
check IMAGE "${IMAGE:-}" '[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}' 'A-Za-z0-9._/:@-'
check MODEL_REVISION "${MODEL_REVISION:-}" '[A-Za-z0-9][A-Za-z0-9._/-]{0,127}' 'A-Za-z0-9._/-'

case $ARGO_SERVER in http://* | https://*) server=${ARGO_SERVER%/} ;; *) server=https://$ARGO_SERVER ;; esac
run="$SERVICE-$RUN_ID"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(umask 077 && printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "${ARGO_TOKEN#Bearer }" >"$work/headers")

# Body, status and the words of curl go to three places, so that none is taken for another.
ask() {
  status=$(curl --silent --show-error --max-time 30 --header "@$work/headers" --output "$work/body" \
    --write-out '%{http_code}' "$@" 2>"$work/words") || status=000
}

found() {
  [ "$status" = 000 ] && cat "$work/words" && return
  jq --raw-output '.message // empty' "$work/body" 2>/dev/null | grep . || echo "HTTP $status"
}

# The reason of a run is cut and cleaned by the binding. A number stays a text, since jq writes the JSON.
jq --null-input --arg id "$RUN_ID" --arg image "${IMAGE:-}" --arg revision "${MODEL_REVISION:-}" \
  --arg reason "${REASON:-ci}" '{"run-id": $id, image: $image, "model-revision": $revision, reason: $reason}' >"$work/payload"
ask --data "@$work/payload" "$server/api/v1/events/$NAMESPACE/$SERVICE"
case $status in
200) ;;
4* | 500)
  # A run of this name may be there from an earlier try of this job; everything else is a refusal.
  found | grep -q 'already exists\|please try again' || end 11 "Argo Server refuses the event: $(found)"
  echo "$run is there already, or the answer says too little: $(found)"
  ;;
*) echo "no answer to the event ($(found)); looking for run $run all the same" ;;
esac

last="" missed=0 absent=0
while :; do
  ask "$server/api/v1/workflows/$NAMESPACE/$run"
  case $status in
  200)
    if state=$(jq --raw-output '.status | "\(.phase // "Pending") \(.progress // "") \(.message // "")"' "$work/body" 2>"$work/words"); then
      missed=0 absent=0
      [ "$state" = "$last" ] || echo "$run: $state"
      last=$state
      case $state in Succeeded* | Failed* | Error*) break ;; esac
    else
      missed=$((missed + 1))
    fi
    ;;
  401 | 403) end 11 "run $run cannot be read: $(found)" ;;
  404) absent=$((absent + 1)) ;;
  *) missed=$((missed + 1)) ;;
  esac
  if [ "$absent" -ge "$most_absent" ]; then
    [ -z "$last" ] || end 11 "run $run was deleted"
    end 75 "run $run did not appear. Next: kubectl -n $NAMESPACE describe workfloweventbinding $SERVICE"
  fi
  [ "$missed" -lt "$most_missed" ] || end 75 "no answer to $missed polls of run $run ($(found)); the run may go on"
  sleep "$pause"
done

# Argo keeps one node for each task and, below a retryStrategy, one for each attempt; the last attempt has the reason. A task
# of the exit handler has one attempt, and one node.
jq --raw-output '
  [.status.nodes // {} | .[]] as $nodes
  | $nodes | map(select(.type == "Retry" or .type == "Skipped" or (.type == "Pod" and (.name | test("\\([0-9]+\\)$") | not))))
  | sort_by(.startedAt)[]
  | . as $task
  | ($nodes | map(select(.type == "Pod" and (.name | startswith($task.name + "(")))) | sort_by(.startedAt) | last // $task) as $attempt
  | ([$attempt.outputs.parameters // [] | .[] | select(.name == "recap") | .value] | first // "") as $recap
  | (if .phase == "Failed" or .phase == "Error" then $attempt.message // .message // "" else $recap end) as $words
  | "  \(.displayName): \(.phase)  \($words)"' "$work/body"

# The phase alone is no verdict: Argo 3.5 calls a run Succeeded that was terminated while it waited for its lock.
# https://github.com/argoproj/argo-workflows/issues/10733
verdict=$(jq --raw-output '
  if .status.phase == "Succeeded" and any(.status.nodes // {} | .[];
    (.displayName == "promote-release" or .displayName == "nothing-changed") and .phase == "Succeeded")
  then "deployed" else "not deployed" end' "$work/body")
[ "$verdict" = deployed ] || end 11 "run $run deployed nothing: neither promote-release nor nothing-changed succeeded"
