#!/bin/sh
# The response time of the Atmosphere's client document from each of three nodes: alone, while every node serves it at
# once, and while the cluster issues tokens. Account servers fetch it in the middle of a sign-in. Release builds of
# conclave and conclave-load:
#   cargo build --release -p conclave-node --bin conclave && cargo build --release -p conclave-benches --bins && benches/documents.sh [dir-of-binaries]
set -eu
bin="${1:-target/release}"
seconds="${SECONDS_EACH:-10}"
dir=$(mktemp -d)
demo=
trap 'kill $demo 2>/dev/null || true; wait $demo 2>/dev/null || true; rm -rf "$dir"' EXIT

get() { "$bin/conclave-load" get --url "$1" --seconds "$seconds" --concurrency "$2"; }

# Only a cluster with an https name has a document. The name need not resolve.
CONCLAVE_HTTP__PUBLIC_URL=https://id.example.com \
    "$bin/conclave" demo --json --nodes 3 --base-port 9800 >"$dir/demo.json" 2>"$dir/demo.err" </dev/null &
demo=$!
until test -s "$dir/demo.json"; do sleep 0.05; done
nodes=$(grep -o '"http":"[^"]*"' "$dir/demo.json" | cut -d'"' -f4)
path=/oauth-client-metadata.json
uptime
for node in $nodes; do curl -sf "$node$path" | sha256sum | cut -c1-16; done
for node in $nodes; do echo "one node at a time, $node: $(get "$node$path" 16)"; done
for node in $nodes; do get "$node$path" 16 >"$dir/${node##*:}" & done
sleep $((seconds + 1))
for node in $nodes; do echo "all at once, $node: $(cat "$dir/${node##*:}")"; done
"$bin/conclave-load" client-credentials --demo "$dir/demo.json" --seconds $((seconds + 2)) --concurrency 8 >"$dir/tokens" &
tokens=$!
sleep 1
for node in $nodes; do get "$node$path" 4 >"$dir/${node##*:}" & done
sleep $((seconds + 1))
for node in $nodes; do echo "beside tokens, $node: $(cat "$dir/${node##*:}")"; done
wait $tokens
echo "the tokens beside it: $(cat "$dir/tokens")"
uptime
