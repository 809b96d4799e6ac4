# shellcheck shell=bash
# The audit part of scripts/bench, which sources it: questions to a ledger of so many records, on Postgres
# and on SQLite, through the API. Never run by itself. The ledgers are filled through the API too, with
# decisions of several apps; both take some 4 GB a million.
# shellcheck disable=SC2154 # work, records, lexgate and the rest are scripts/bench's

limit_ms=100

bench_audit() {
    local free store
    free=$(df -Pk "$work" | awk 'NR == 2 { printf "%d", $4 / 1024 }')
    [ "$free" -ge $((records / 1000000 * 11000 + 1000)) ] ||
        fail "two ledgers of $records records want more than the $free MB that are free in $(dirname "$work"): set TMPDIR"
    export LEXGATE_LEDGER__READINGS_PER_MINUTE=1000000
    for store in ${LEXGATE_BENCH_STORES:-postgres sqlite}; do
        heading "Asking: $records records on $store"
        prepare_audit "$store"
        start_service
        progress "filling it"
        python3 "$root/scripts/audit_load.py" fill "$url" "$work/keys.json" "$records" >"$work/filled"
        note "filled at $(cat "$work/filled")"
        # What is not indexed yet is when the service starts.
        stop_process "$service" lexgate
        start_service
        python3 "$root/scripts/audit_load.py" ask "$url" "$work/keys.json" "$limit_ms" || missed=1
        stop_process "$service" lexgate
        [ "$store" != postgres ] || psql -qX -c 'DROP DATABASE lexgate WITH (FORCE)' "$server/postgres"
        rm -rf "$work/example"
    done
}

# The example organisation with a caller's key for each app that calls, and a store for it.
prepare_audit() {
    local app
    case $1 in
        postgres)
            psql -qX -c 'CREATE DATABASE lexgate' "$server/postgres"
            database=$server/lexgate
            ;;
        sqlite) database=sqlite://$work/example/data/bench.db ;;
    esac
    (umask 077 && "$lexgate" init "$work/example" --json >"$work/credentials.json")
    for app in freight-desk payments-desk ward-notes; do
        (cd "$work/example" && "$lexgate" keys create --json --name "$app" --role caller --app "$app") \
            >"$work/key.$app.json"
    done
    python3 -c 'import json, sys
keys = {key["name"]: key["secret"] for key in json.load(open(sys.argv[1]))["keys"]}
for path in sys.argv[2:]:
    made = json.load(open(path))
    keys[made["name"]] = made["secret"]
print(json.dumps(keys))' "$work/credentials.json" "$work"/key.*.json >"$work/keys.json"
}
