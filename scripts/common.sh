# shellcheck shell=bash
# What the scripts share: the repository's root, output, Debian packages, free ports.
# Sourced, never run; it changes nothing by itself.

# shellcheck disable=SC2034 # used by the scripts that source this file
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Where the scripts keep what they make: git ignores it.
data=${LEXGATE_DATA:-$root/data}
case $data in /*) ;; *) data=$PWD/$data ;; esac

bold='' dim='' red='' green='' yellow='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
fi

heading() { printf '\n%s%s==> %s%s\n' "$bold" "$green" "$*" "$plain"; }
note() { printf '%s    %s%s\n' "$dim" "$*" "$plain"; }
progress() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Ends the script: 3 means that the environment lacks something, as in lexgate's own exit codes.
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 3
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "\`$*\` needs root, and there is no sudo"
    fi
}

install_debian() {
    command -v apt-get >/dev/null || fail "please install $* (there is no apt-get here to do it)"
    progress "installing $*"
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
}

# need COMMAND [PACKAGE]: installs the package unless the command is there.
need() {
    command -v "$1" >/dev/null || install_debian "${2:-$1}"
}

# A TCP port that was free on 127.0.0.1 a moment ago.
free_port() {
    python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# is_alive PID: true for a child that was just started, whatever it has become by now.
is_alive() {
    case $(ps -p "$1" -o stat= 2>/dev/null) in '' | Z*) return 1 ;; esac
}

# is_running PID WORD: true if the process lives and its command line holds the word
# (a process id alone may have passed to someone else since it was written down).
is_running() {
    [ -n "$1" ] && ps -p "$1" -o args= 2>/dev/null | grep -qF -- "$2"
}

# stop_process PID WORD: asks with SIGTERM, insists after 15 seconds.
stop_process() {
    is_running "$1" "$2" || return 0
    kill -TERM "$1" 2>/dev/null || true
    for _ in $(seq 150); do
        is_running "$1" "$2" || return 0
        sleep 0.1
    done
    progress "process $1 ignored SIGTERM for 15 s: killing it"
    kill -KILL "$1" 2>/dev/null || true
}
