# shellcheck shell=bash
# The gateway part of scripts/bench, which sources it: a mock backend called directly, through
# Lexgate on Postgres, and through other gateways. Never run by itself.
#
# The others keep no record, Lexgate two of each call. Everybody gets the same requests over
# connections that are kept open, with the same headers; each measurement is taken in three
# rounds, one contestant after the other, and the median counts.
# shellcheck disable=SC2154 # work, seconds, service, target and the rest are scripts/bench's

# The newest that there were on 2026-11-26.
litellm_version=1.108.7
portkey_version=1.15.2
tensorzero_version=2026.6.0
peers=${XDG_CACHE_HOME:-$HOME/.cache}/lexgate/peers
litellm=$peers/litellm-$litellm_version
portkey=$peers/portkey-$portkey_version
tensorzero=$peers/tensorzero-$tensorzero_version

contestants=(direct lexgate tensorzero portkey litellm)
rounds=3
streams=2000
pieces=50
declare -A endpoint model process

install_peers() {
    need python3
    need node nodejs
    need npm
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
    python_peer "$litellm" "litellm[proxy]==$litellm_version"
    python_peer "$tensorzero" "tensorzero==$tensorzero_version"
    [ -e "$portkey/installed" ] || {
        progress "installing @portkey-ai/gateway $portkey_version into $portkey"
        mkdir -p "$portkey"
        # With a newer @hono/node-server it answers no stream: the patch that it would need is not in
        # its package.
        echo "{\"dependencies\":{\"@portkey-ai/gateway\":\"$portkey_version\"},\"overrides\":{\"@hono/node-server\":\"1.3.3\"}}" \
            >"$portkey/package.json"
        npm install --silent --no-audit --no-fund --legacy-peer-deps --prefix "$portkey" >&2
        touch "$portkey/installed"
    }
}

# python_peer FOLDER REQUIREMENT
python_peer() {
    [ ! -e "$1/installed" ] || return 0
    progress "installing $2 into $1"
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install -q "$2" >&2
    touch "$1/installed"
}

# start NAME WORD COMMAND…: in the background; WORD stands in the command line.
start() {
    local name=$1 word=$2
    shift 2
    "$@" </dev/null >"$work/$name.log" 2>&1 &
    process[$name]=$!
    others+=("$!" "$word")
}

# Until NAME gives the mock's answers, whole and streamed, to the last word.
await() {
    local wrong=''
    for _ in $(seq 120); do
        wrong=$("$load" check "${endpoint[$1]}" "${model[$1]}" 2>&1) && return
        is_alive "${process[$1]}" || break
        sleep 1
    done
    tail -n 25 "$work/$1.log" >&2
    fail "$1 does not answer as it should: $wrong"
}

start_mock() {
    local address
    address=127.0.0.1:$(free_port)
    export GATEWAY_LOAD_BACKEND=http://$address/v1
    endpoint[direct]=$GATEWAY_LOAD_BACKEND/chat/completions model[direct]=mistral-small
    start direct gateway_load "$load" mock "$address"
    await direct
}

start_lexgate() {
    sed -i "s|\"http://gpu-frankfurt.acme.example:8000/v1\"|\"$GATEWAY_LOAD_BACKEND\"|" \
        "$work/example/config/organisation.toml"
    export FRANKFURT_API_KEY=dummy
    start_service
    endpoint[lexgate]=$url/v1/chat/completions model[lexgate]=mistral-small
    process[lexgate]=$service
    ln -s serve.log "$work/lexgate.log"
    await lexgate
}

start_tensorzero() {
    local config=$work/tensorzero.toml
    cat >"$config" <<END
[gateway]
disable_pseudonymous_usage_analytics = true
observability.enabled = false

[models.mistral-small]
routing = ["mock"]

[models.mistral-small.providers.mock]
type = "openai"
model_name = "mistral-small"
api_base = "$GATEWAY_LOAD_BACKEND/"
api_key_location = "env::FRANKFURT_API_KEY"
END
    # What the package's patch_openai_client starts, without a client.
    start tensorzero "$tensorzero" "$tensorzero/bin/python" -c 'import sys, threading, tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
with open(sys.argv[2], "w") as told:
    print(gateway.base_url, file=told)
threading.Event().wait()' "$config" "$work/tensorzero.url"
    for _ in $(seq 60); do
        [ ! -s "$work/tensorzero.url" ] || break
        sleep 1
    done
    endpoint[tensorzero]=$(sed 's|/*$|/chat/completions|' "$work/tensorzero.url")
    model[tensorzero]=tensorzero::model_name::mistral-small
    await tensorzero
}

start_portkey() {
    local port
    port=$(free_port)
    endpoint[portkey]=http://127.0.0.1:$port/v1/chat/completions model[portkey]=mistral-small
    NODE_ENV=production start portkey "$portkey" \
        node "$portkey/node_modules/@portkey-ai/gateway/build/start-server.js" --port="$port" --headless
    await portkey
}

start_litellm() {
    local port config=$work/litellm.yaml
    port=$(free_port)
    cat >"$config" <<END
model_list:
  - model_name: mistral-small
    litellm_params:
      model: openai/mistral-small
      api_base: $GATEWAY_LOAD_BACKEND
      api_key: os.environ/FRANKFURT_API_KEY
litellm_settings:
  telemetry: false
END
    endpoint[litellm]=http://127.0.0.1:$port/v1/chat/completions model[litellm]=mistral-small
    # It wants a key of its own, and would otherwise fetch a list of prices.
    LITELLM_MASTER_KEY=$GATEWAY_LOAD_KEY LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_LOG=ERROR \
        start litellm "$litellm" "$litellm/bin/litellm" --config "$config" --host 127.0.0.1 --port "$port" \
        --num_workers 1 --telemetry False
    await litellm
}

# The processors' time that NAME has used so far, and the server's processes for it, in nanoseconds.
# What Postgres writes later, in processes of its own, is not in it.
used() {
    local servers=''
    [ "$1" != lexgate ] ||
        servers=$(sql -c "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()")
    # shellcheck disable=SC2086 # one word for each process
    echo "$(time_of "${process[$1]}") $(time_of $servers)"
}

# time_of [PROCESS…]: the sum over their threads.
time_of() {
    local process
    for process in "$@"; do
        cat "/proc/$process"/task/*/schedstat 2>/dev/null || true
    done | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

# measure KIND CONNECTIONS SECONDS: a line for each contestant, and one of what a call cost.
measure() {
    local name line before
    for name in "${contestants[@]}"; do
        [ "$name" != lexgate ] || sql -c CHECKPOINT
        before=$(used "$name")
        line=$("$load" "$1" "${endpoint[$name]}" "${model[$name]}" "$2" "$3")
        echo "$line" >>"$work/$name.$1.$2"
        echo "$before $(used "$name") $line" |
            awk -v s="$3" '{ n = $5 * s * 1000; if (n > 0) print ($3 - $1) / n, ($4 - $2) / n; else print 0, 0 }' >>"$work/$name.cost.$1.$2"
        case $name in
            direct | lexgate)
                [ "${line##* }" = 0 ] || fail "$name: ${line##* } of the calls did not get the right answer"
                ;;
        esac
    done
}

# middle NAME MEASUREMENT COLUMN: the median of the rounds.
middle() {
    awk -v column="$3" '{ print $column }' "$work/$1.$2" | sort -g |
        awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

# What NAME adds to a direct call, in COLUMN of MEASUREMENT.
added() {
    awk -v a="$(middle "$1" "$2" "$3")" -v b="$(middle direct "$2" "$3")" 'BEGIN { printf "%.3f", a - b }'
}

# Microseconds that NAME adds to each piece of a stream.
added_per_piece() { awk -v ms="$(added "$1" stream.1 3)" -v n="$pieces" 'BEGIN { printf "%.1f", ms * 1000 / n }'; }

show_whole() {
    local name connections
    printf '    %-11s' 'whole'
    for connections in 1 8 32; do
        printf ' %9s %8s %8s' "req/s, $connections" 'p50 ms' 'p99 ms'
    done
    printf ' %9s\n' 'added p50'
    for name in "${contestants[@]}"; do
        printf '    %-11s' "$name"
        for connections in 1 8 32; do
            printf ' %9.0f %8.2f %8.2f' "$(middle "$name" "whole.$connections" 1)" \
                "$(middle "$name" "whole.$connections" 2)" "$(middle "$name" "whole.$connections" 3)"
        done
        printf ' %9.2f\n' "$(added "$name" whole.1 2)"
    done
}

# What a call costs in processor time. Of a direct call, the mock's.
show_cost() {
    local name connections
    printf '\n    %-11s' 'us a call'
    for connections in 1 8 32; do
        printf ' %9s %17s' "own, $connections" "Postgres, $connections"
    done
    printf '\n'
    for name in "${contestants[@]}"; do
        printf '    %-11s' "$name"
        for connections in 1 8 32; do
            printf ' %9.0f' "$(middle "$name" "cost.whole.$connections" 1)"
            if [ "$name" = lexgate ]; then
                printf ' %17.0f' "$(middle "$name" "cost.whole.$connections" 2)"
            else
                printf ' %17s' ''
            fi
        done
        printf '\n'
    done
}

show_streams() {
    local name held failed memory failures
    printf '\n    %-11s %10s %14s %9s %12s %14s %8s %9s\n' streamed 'streams/s' 'first byte ms' 'added ms' \
        'us a piece' 'slow, at once' 'failed' 'memory MB'
    for name in "${contestants[@]}"; do
        printf '    %-11s %10.0f %14.2f %9.2f %12.1f' "$name" "$(middle "$name" stream.1 1)" \
            "$(middle "$name" stream.1 2)" "$(added "$name" stream.1 2)" "$(added_per_piece "$name")"
        if [ -e "$work/$name.hold" ]; then
            read -r held failed memory <"$work/$name.hold"
            printf ' %14d %8d %9.0f' "$held" "$failed" "$memory"
        fi
        printf '\n'
    done
    for name in "${contestants[@]}"; do
        failures=$(cat "$work/$name".whole.* "$work/$name".stream.* | awk '{ sum += $NF } END { print sum }')
        [ "$failures" = 0 ] || note "$name: $failures calls did not get the right answer"
    done
}

bench_gateway() {
    local name connections round held failed memory decisions outcomes
    load=$target/examples/gateway_load
    ulimit -n "$(ulimit -Hn)"
    heading "Starting: mock backend, Lexgate on Postgres, TensorZero $tensorzero_version, Portkey $portkey_version, LiteLLM $litellm_version"
    prepare_service
    export GATEWAY_LOAD_KEY=$LEXGATE_BENCH_KEY
    for name in mock lexgate tensorzero portkey litellm; do
        progress "$name"
        "start_$name"
    done

    heading "Whole and streamed answers, $rounds rounds of $seconds s each"
    progress "warm-up"
    measure whole 8 2
    measure stream 1 1
    rm "$work"/*.whole.8 "$work"/*.stream.1
    for round in $(seq $rounds); do
        progress "round $round"
        for connections in 1 8 32; do
            measure whole "$connections" "$seconds"
        done
        measure stream 1 "$seconds"
    done
    heading "$streams slow streams at once, a piece a second"
    for name in "${contestants[@]:1}"; do
        progress "$name"
        "$load" hold "${endpoint[$name]}" "${model[$name]}" "$streams" "${process[$name]}" >"$work/$name.hold"
    done
    stop_process "$service" lexgate
    decisions=$(sql -c "SELECT count(*) FROM entries WHERE kind = 'decision'")
    outcomes=$(sql -c "SELECT count(*) FROM entries WHERE kind = 'outcome'")

    heading "Result"
    show_whole
    show_cost
    show_streams
    printf '\n    lexgate recorded %d decisions and %d outcomes\n\n' "$decisions" "$outcomes"
    for connections in 8 32; do
        bar "requests per second to TensorZero's, $connections connections" \
            "$(quotient "$(middle lexgate "whole.$connections" 1)" "$(middle tensorzero "whole.$connections" 1)")" min 1
    done
    bar 'added p50 in ms, 1 connection' "$(added lexgate whole.1 2)" most 2.5
    bar 'added time to first byte in ms, streamed' "$(added lexgate stream.1 2)" most 2.5
    bar 'added per piece of a stream in microseconds' "$(added_per_piece lexgate)" most 50
    read -r held failed memory <"$work/lexgate.hold"
    bar 'slow streams open at once' "$held" min "$streams"
    bar 'slow streams that did not end well' "$failed" most 0
    bar "memory with $streams slow streams in MB" "$memory" max 300
    bar 'calls without an outcome' "$((decisions - outcomes))" most 0
}
