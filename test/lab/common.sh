# shellcheck shell=bash disable=SC2034,SC2154 # the parts of one script use each other's variables
# What all parts of the lab use: its names and its way of speaking.

# A lab's state: console.log, nspawn.pid, init.pid, suite, and lrd.sock, the short stable path to lrd's socket.
# Short because a Unix socket's path is limited to 107 bytes.
state_root=/run/lrd-lab
[ -w "${state_root%/*}" ] || state_root=/tmp/lrd-lab
state=$state_root/$LAB
machine=lrd-$LAB

say() { printf 'lab %s: %s\n' "$LAB" "$*" >&2; }
die() { say "$*"; exit 1; }

# locked FUNCTION: one up, down or install of a lab at a time.
lock=$LRD_LAB_CACHE/.$LAB.lock # not beside the state: that goes away earlier
locked() {
    mkdir -p "$LRD_LAB_CACHE"
    while :; do
        exec {lock_fd}>"$lock"
        flock "$lock_fd"
        # Whoever held it may have removed it, with the lab: then it keeps nobody out any more.
        [ ! "/proc/self/fd/$lock_fd" -ef "$lock" ] || break
        exec {lock_fd}>&-
    done
    "$@"
}

# make_shared DIRECTORY: below one that all labs share, and that the end of the last of them may be removing right now.
make_shared() {
    until_true 60 mkdir -p "$1" 2>/dev/null || mkdir -p "$1"
}

# until_true SECONDS COMMAND…: polls; most of what a lab waits for takes a fraction of a second.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}
