#!/bin/sh
# The figures of RESULTS.md, from release builds of conclave and conclave-load. Prints one line a figure; run it three times.
#   cargo build --release -p conclave-node -p conclave-benches --bins && benches/figures.sh [target-dir]
set -eu
bin="${1:-target}/release"
dir=$(mktemp -d)
base=9700
child=
trap 'test -z "$child" || kill "$child" 2>/dev/null; rm -rf "$dir"' EXIT

rss() { awk '/^VmRSS/ { print $2 / 1024 " MiB" }' "/proc/$1/status"; }

node() { # label
    "$bin/conclave" serve --config "$dir/node.toml" >"$dir/node.log" 2>&1 &
    child=$!
    until grep -q ready_ms "$dir/node.log"; do sleep 0.05; done
    echo "one node, $1: ready_ms $(sed -n 's/.*"ready_ms":\([0-9]*\).*/\1/p' "$dir/node.log")"
}

stop() {
    kill "$child"
    wait "$child" 2>/dev/null || true
    child=
}

demo() { # nodes
    rm -f "$dir/demo.json"
    began=$(date +%s%N)
    "$bin/conclave" demo --json --nodes "$1" --base-port $base >"$dir/demo.json" 2>"$dir/demo.err" </dev/null &
    child=$!
    until test -s "$dir/demo.json"; do sleep 0.005; done
    echo "demo of $1, fresh: $((($(date +%s%N) - began) / 1000000)) ms to its line"
}

load() { "$bin/conclave-load" "$@"; }

uptime
ls -l "$bin/conclave"
cat >"$dir/node.toml" <<TOML
[node]
data_dir = "$dir/data"
[cluster]
listen = "127.0.0.1:9721"
[http]
listen = "127.0.0.1:9701"
[api]
listen = "127.0.0.1:9711"
[log]
format = "json"
TOML
node fresh
sleep 10
echo "one node alone, idle 10 s: $(rss "$child")"
stop
node restarted
stop

demo 3
sleep 10
for pid in $(grep -o '"pid":[0-9]*' "$dir/demo.json" | cut -d: -f2); do echo "node of three, idle 10 s: $(rss "$pid")"; done
load login --demo "$dir/demo.json" --seconds 1 --concurrency 2 >/dev/null # creates the users
echo "argon2 alone, 2 threads:      $(load argon2 --seconds 10 --concurrency 2)"
echo "logins, demo of three:        $(load login --demo "$dir/demo.json" --seconds 10 --concurrency 8)"
echo "argon2 alone, 2 threads:      $(load argon2 --seconds 10 --concurrency 2)"
echo "userinfo, demo of three:      $(load userinfo --demo "$dir/demo.json" --seconds 5 --concurrency 16)"
stop

demo 1
load login --demo "$dir/demo.json" --seconds 1 --concurrency 2 >/dev/null
echo "logins, one node:             $(load login --demo "$dir/demo.json" --seconds 10 --concurrency 8)"
echo "argon2 alone, 2 threads:      $(load argon2 --seconds 10 --concurrency 2)"

# The server on one core, the load on the other.
"$bin/conclave-load" serve-bare --port 9800 &
bare=$!
pid=$(grep -o '"pid":[0-9]*' "$dir/demo.json" | cut -d: -f2)
taskset -acp 0 "$pid" >/dev/null
taskset -acp 0 "$bare" >/dev/null
for turn in 1 2; do
    echo "bare 200, core 0, turn $turn:    $(taskset -c 1 "$bin/conclave-load" get --url http://127.0.0.1:9800/ --seconds 5 --concurrency 16)"
    echo "check, core 0, turn $turn:       $(taskset -c 1 "$bin/conclave-load" check --demo "$dir/demo.json" --seconds 5 --concurrency 16)"
done
kill "$bare"
stop
uptime
