#!/bin/sh
# The cost of a forward-auth check: by the application's access rule, by a policy with a group and an expression, with a
# signed assertion, and confirmed by a quorum (CONCLAVE_CLUSTER__CHECKS=quorum); and beside it the cost of an equal
# response, head and body, by hyper alone to an equal request. The servers run on core 0 from their start and the load
# on core 1; they take turns. Prints a line a turn, with the processor time of the server divided by its number of
# responses: other programs on the machine disturb that less than the rate.
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

told() { sed -n "s/.*\"$2\":\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" "$dir/$1.json"; } # demo, field

at() { # demo, command …
    name=$1
    shift
    CONCLAVE_API=$(told "$name" api) CONCLAVE_TOKEN=$(told "$name" token) "$bin/conclave" "$@" >/dev/null
}

cat >"$dir/policy.toml" <<'EOF'
[[row]]
effect = "allow"
group = "admins"
expression = "size(user.groups) > 0 && request.host.endsWith('localhost')"
EOF

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

turn() { # what, process, demo, more …
    what=$1 pid=$2 name=$3
    shift 3
    before=$(ticks "$pid")
    said=$(taskset -c 1 "$bin/conclave-load" check --demo "$dir/$name.json" --seconds "$seconds" --concurrency 16 "$@")
    after=$(ticks "$pid")
    done=$(echo "$said" | sed -n 's/.*done \([0-9]*\).*/\1/p')
    each=$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$done" 'BEGIN { printf "%.1f", n ? t / hz * 1e6 / n : 0 }')
    echo "$what: $said  processor $each us"
}

uptime
demo rule lease 9700 1
demo policy lease 9850 1
demo signed lease 10000 1
demo quorum quorum 10150 1
at policy policy set --force demo-app "$dir/policy.toml"
at signed policy set --force demo-app "$dir/policy.toml"
at signed app update demo-app --assertion on
taskset -c 0 "$bin/conclave-load" serve-answer --demo "$dir/policy.json" --port 9997 &
bare=$!
sleep 1
for n in $(seq "$turns"); do
    turn "turn $n, hyper, the same answer          " "$bare" policy --to http://127.0.0.1:9997
    turn "turn $n, access rule                     " "$(told rule pid)" rule
    turn "turn $n, a group and an expression       " "$(told policy pid)" policy
    turn "turn $n, the same and a signed assertion " "$(told signed pid)" signed
    turn "turn $n, access rule, quorum of one      " "$(told quorum pid)" quorum
done
kill $bare $demos
wait $bare $demos 2>/dev/null || true
demos=
demo three lease 10300 3
demo three-quorum quorum 10450 3
first() { told "$1" pid; }
for n in $(seq "$turns"); do
    turn "turn $n, three nodes on the core, lease  " "$(first three)" three
    turn "turn $n, three nodes on the core, quorum " "$(first three-quorum)" three-quorum
done
uptime
