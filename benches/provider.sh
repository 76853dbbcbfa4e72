#!/bin/sh
# The rates of the provider's endpoints on one pinned core, each beside a bare axum server with a body of equal size on
# that core; the load has the other core. From release builds of conclave and conclave-load:
#   cargo build --release -p conclave-node --bin conclave && cargo build --release -p conclave-benches --bins && benches/provider.sh [dir-of-binaries]
set -eu
bin="${1:-target/release}"
seconds="${SECONDS_EACH:-10}"
dir=$(mktemp -d)
node=
bare=
trap 'kill $node $bare 2>/dev/null || true; rm -rf "$dir"' EXIT

load() { taskset -c 1 "$bin/conclave-load" "$@" --seconds "$seconds" --concurrency 8; }

beside() { # name, bytes of the answer, get|post
    taskset -c 0 "$bin/conclave-load" serve-bare --port 9951 --bytes "$2" &
    bare=$!
    sleep 0.3
    echo "  bare, $2 bytes: $(load "$3" --url http://127.0.0.1:9951/)"
    kill "$bare"
    wait "$bare" 2>/dev/null || true
    bare=
}

uptime
taskset -c 0 "$bin/conclave" demo --json --nodes 1 --base-port 9800 >"$dir/demo.json" 2>"$dir/demo.err" </dev/null &
node=$!
until test -s "$dir/demo.json"; do sleep 0.05; done
front=$(sed -n 's/.*"http":"\([^"]*\)".*/\1/p' "$dir/demo.json" | head -1)
jwks=$(curl -s "$front/oidc/jwks" | wc -c)

echo "jwks: $(load get --url "$front/oidc/jwks")"
beside jwks "$jwks" get
echo "userinfo: $(load userinfo --demo "$dir/demo.json")"
beside userinfo 250 get
echo "introspection: $(load introspect --demo "$dir/demo.json")"
beside introspection 400 post
echo "client_credentials: $(load client-credentials --demo "$dir/demo.json")"
beside client_credentials 900 post
echo "refresh: $(load refresh --demo "$dir/demo.json")"
beside refresh 2000 post
