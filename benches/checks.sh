#!/bin/sh
# What a forward-auth check costs: under a lease, confirmed by a quorum (CONCLAVE_CLUSTER__CHECKS=quorum), and beside it what hyper alone
# takes to give the same answer, head and body, to the same request. The servers run on core 0 from their start and the load on core 1;
# they take turns. Prints a line a turn.
#   cargo build --release -p conclave-node -p conclave-benches --bins && benches/checks.sh [target-dir/profile] [seconds] [turns]
set -eu
bin="${1:-target/release}"
seconds="${2:-5}"
turns="${3:-3}"
dir=$(mktemp -d)
bare=
demos=
trap 'kill $bare $demos 2>/dev/null || true; rm -rf "$dir"' EXIT

demo() { # name, checks, base port, nodes
    CONCLAVE_CLUSTER__CHECKS="$2" taskset -c 0 "$bin/conclave" demo --json --nodes "$4" --base-port "$3" --data "$dir/$1" \
        >"$dir/$1.json" 2>"$dir/$1.err" </dev/null &
    demos="$demos $!"
    until test -s "$dir/$1.json"; do sleep 0.05; done
}

load() { taskset -c 1 "$bin/conclave-load" "$@" --seconds "$seconds" --concurrency 16; }

uptime
for nodes in 1 3; do
    demo "lease$nodes" lease $((9700 + nodes * 300)) "$nodes"
    demo "quorum$nodes" quorum $((9850 + nodes * 300)) "$nodes"
    taskset -c 0 "$bin/conclave-load" serve-answer --demo "$dir/lease$nodes.json" --port $((9800 + nodes)) &
    bare=$!
    sleep 1
    for turn in $(seq "$turns"); do
        echo "turn $turn, hyper, the same answer:        $(load check --demo "$dir/lease$nodes.json" --to http://127.0.0.1:$((9800 + nodes)))"
        echo "turn $turn, checks, lease, nodes $nodes:   $(load check --demo "$dir/lease$nodes.json")"
        echo "turn $turn, checks, quorum, nodes $nodes:  $(load check --demo "$dir/quorum$nodes.json")"
    done
    kill $bare $demos
    wait $bare $demos 2>/dev/null || true
    demos=
done
uptime
