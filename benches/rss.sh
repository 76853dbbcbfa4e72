#!/bin/sh
# The growth of a node under load: its resident memory each half minute, while it answers checks by a policy with a
# group and an expression as fast as it can. The node is on core 0 and the load on core 1.
#   cargo build --release -p conclave-node -p conclave-benches --bins && benches/rss.sh [target-dir/profile] [seconds] [every]
set -eu
bin="${1:-target/release}"
seconds="${2:-600}"
every="${3:-30}"
dir=$(mktemp -d)
demo=
load=
trap 'kill $load $demo 2>/dev/null || true; rm -rf "$dir"' EXIT

taskset -c 0 "$bin/conclave" demo --json --nodes 1 --base-port 9600 --data "$dir/data" >"$dir/demo.json" 2>"$dir/err" </dev/null &
demo=$!
until test -s "$dir/demo.json"; do sleep 0.05; done
told() { sed -n "s/.*\"$1\":\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" "$dir/demo.json"; }
cat >"$dir/policy.toml" <<'EOF'
[[row]]
effect = "allow"
group = "admins"
expression = "size(user.groups) > 0 && request.host.endsWith('localhost')"
EOF
CONCLAVE_API=$(told api) CONCLAVE_TOKEN=$(told token) "$bin/conclave" policy set --force demo-app "$dir/policy.toml" >/dev/null

rss() { awk '/^VmRSS/ { printf "%.1f MiB", $2 / 1024 }' "/proc/$(told pid)/status"; }
uptime
echo "before: $(rss)"
taskset -c 1 "$bin/conclave-load" check --demo "$dir/demo.json" --seconds "$seconds" --concurrency 16 >"$dir/said" &
load=$!
passed=0
while [ "$passed" -lt "$seconds" ]; do
    sleep "$every"
    passed=$((passed + every))
    echo "after $passed s: $(rss)"
done
wait $load
load=
cat "$dir/said"
sleep 5
echo "five seconds after the load: $(rss)"
uptime
