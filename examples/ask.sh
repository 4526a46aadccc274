#!/usr/bin/env bash
# One request and its reply with kcat and jq; the answer is found by its key, the request's id.
#
#     examples/ask.sh "Why is the sky blue?"
set -euo pipefail

servers=${AI_KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:9092}
id=$(cat /proc/sys/kernel/random/uuid)
# A minute of room for clocks that differ; the id tells the reply from all others.
began=$(($(date +%s%3N) - 60000))

jq -cn --arg id "$id" --arg prompt "$1" \
  '{request_id: $id, workspace_id: "examples", prompt: $prompt, max_tokens: 200, reply_to: "ai.replies"}' |
  kcat -P -b "$servers" -t ai.requests -k examples

# Look until it is there, always from before the request on: a reader that goes on by itself may begin behind the reply.
deadline=$((SECONDS + 60))
until response=$(kcat -C -e -q -b "$servers" -t ai.replies -o "s@$began" -f '%k %s\n' | grep "^$id "); do
  ((SECONDS < deadline)) || { echo "No reply came within 60 seconds." >&2; exit 1; }
  sleep 0.2
done

# The same reply may come twice.
jq -re '.content // error(.error.message)' <<< "$(head -n 1 <<< "${response#"$id" }")"
