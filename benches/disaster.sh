#!/bin/sh
# Snapshots and restores with this many users, each with a session: the time and size of a snapshot, the times of checks
# and logins during snapshots and without, the time until a snapshot is verified, restored and signed in to, the memory
# of it, and the time of a node's restart.
#   cargo build --release -p conclave-node -p conclave-benches --bins --examples && benches/disaster.sh [target-dir/profile] [people] [seconds]
set -eu
bin="${1:-target/release}"
people="${2:-10000}"
seconds="${3:-10}"
dir=$(mktemp -d)
demo=
trap 'kill $demo 2>/dev/null || true; rm -rf "$dir"' EXIT

start() {
    : >"$dir/demo.json"
    "$bin/conclave" demo --json --nodes 1 --base-port 9400 --data "$dir/data" >"$dir/demo.json" 2>"$dir/err" </dev/null &
    demo=$!
    until test -s "$dir/demo.json"; do sleep 0.05; done
}
stop() {
    kill "$demo"
    wait "$demo" || true
    demo=
}
told() { sed -n "s/.*\"$1\":\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" "$dir/demo.json"; }
conclave() { CONCLAVE_API=$(told api) "$bin/conclave" "$@" --config "$dir/data/node-1.toml"; }
load() { "$bin/conclave-load" "$@" --demo "$dir/demo.json" --seconds "$seconds"; }
now() { date +%s%3N; }
rss() { awk '/^VmRSS/ { r = $2 } /^VmHWM/ { h = $2 } END { printf "%d MiB now, %d MiB at most", r / 1024, h / 1024 }' "/proc/$1/status"; }
saves() { # until the load has ended
    n=0
    while kill -0 "$1" 2>/dev/null; do
        # The client that requests it would be on another machine.
        CONCLAVE_API=$(told api) nice -n 19 "$bin/conclave" snapshot save --linearizable --to "$dir/$2-$n" --config "$dir/data/node-1.toml" >/dev/null
        n=$((n + 1))
        # One after the other without a pause, which is unrealistic: the worst case.
    done
    echo "  $n snapshots meanwhile"
}

uptime
start
stop
"$bin/examples/fill" --config "$dir/data/node-1.toml" --users "$people"
begun=$(now)
start
node=$(pgrep -f "serve .*$dir/data/node-1.toml")
echo "started with $people people: $(grep -o 'ready in [0-9]* ms' "$dir/data/node-1.log" | tail -1); seeded after $(($(now) - begun)) ms; memory $(rss "$node")"
for turn in 1 2 3; do
    conclave group create "turn-$turn" >/dev/null
    begun=$(now)
    conclave snapshot save --linearizable --to "$dir/snapshot-$turn" >/dev/null
    echo "saved in $(($(now) - begun)) ms: $(stat -c %s "$dir/snapshot-$turn") bytes; memory $(rss "$node")"
done
for turn in 1 2; do
    echo "checks alone: $(load check --concurrency 2)"
    load check --concurrency 2 >"$dir/beside" &
    saves $! "check-$turn"
    echo "checks beside snapshots: $(cat "$dir/beside")"
    echo "logins alone: $(load login --concurrency 2)"
    load login --concurrency 2 >"$dir/beside" &
    saves $! "login-$turn"
    echo "logins beside snapshots: $(cat "$dir/beside")"
done
begun=$(now)
conclave snapshot verify "$dir/snapshot-3" >/dev/null
echo "verified in $(($(now) - begun)) ms"
begun=$(now)
conclave snapshot drill "$dir/snapshot-3" -o json | tr -d '\n'
echo
echo "restored, started and signed in to (with everything read back twice) in $(($(now) - begun)) ms"
stop
mkdir "$dir/empty"
sed "s#^data_dir.*#data_dir = \"$dir/empty/data\"#" "$dir/data/node-1.toml" >"$dir/empty/node.toml"
begun=$(now)
if command -v /usr/bin/time >/dev/null; then timed="/usr/bin/time -f %MKiB"; else timed=; fi
$timed "$bin/conclave" restore "$dir/snapshot-3" --config "$dir/empty/node.toml" >/dev/null
echo "restored into an empty directory in $(($(now) - begun)) ms"
uptime
