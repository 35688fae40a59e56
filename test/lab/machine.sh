# shellcheck shell=bash disable=SC2154 # the parts of one script use each other's variables
# A lab's life: boot, install, exec, stop.
#
# All mounts of a lab are made in the mount namespace of its systemd-nspawn, so they end with it, however it ends.
# What remains to be removed of a dead lab is its state directory and its control groups.

# The lab needs a control group of its own in every hierarchy that systemd-nspawn uses,
# or two labs would share one root. On a machine run by systemd that is a delegated scope, made by systemd-run.
cgroup=/lrd-lab/$LAB
cgroup_roots() {
    local root
    for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        [ ! -e "$root/cgroup.procs" ] || echo "$root"
    done
}

machine_runs() {
    local pid words
    read -r pid 2>/dev/null <"$state/boot.pid" || return 1
    # The process ID may be somebody else's by now.
    mapfile -d '' words 2>/dev/null <"/proc/$pid/cmdline" || return 1
    [[ " ${words[*]} " == *" __boot $machine "* || " ${words[*]} " == *" --machine=$machine "* ]]
}

# machine_pid: the lab's init, as this machine numbers it.
machine_pid() {
    machine_runs || die "is not up"
    cat "$state/init.pid" 2>/dev/null || die "has not booted yet"
}

# find_init: looks for it among systemd-nspawn's children and writes init.pid.
find_init() {
    local nspawn child children=()
    nspawn=$(cat "$state/nspawn.pid" 2>/dev/null) || return 1
    read -r -a children 2>/dev/null <"/proc/$nspawn/task/$nspawn/children" || true
    for child in "${children[@]}"; do
        # systemd-nspawn has passing children too; the lab's init is number 1 in a PID namespace below ours.
        if grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$child/status" 2>/dev/null; then
            echo "$child" >"$state/init.pid"
            return
        fi
    done
    return 1
}

machine_up() {
    local started=$EPOCHREALTIME
    if machine_runs && [ -e "$state/init.pid" ]; then
        say "is up ($(cat "$state/suite"))"
        return
    fi
    deps_install lab
    machine_sweep
    make_shared "$state"
    echo "$SUITE" >"$state/suite"
    tree_lower >"$state/lower"

    local launch=(setsid) root
    if [ -d /run/systemd/system ]; then
        launch+=(systemd-run --quiet --scope --collect --property=Delegate=yes --unit="$machine")
    else
        for root in $(cgroup_roots); do make_shared "$root$cgroup"; done
    fi
    # Nothing of the caller may stay open in the lab: its terminal, its lock, the pipe of a test that waits for EOF.
    LAB=$LAB SUITE=$SUITE "${launch[@]}" unshare --mount --propagation private "$here/lab" __boot "$machine" \
        </dev/null >"$state/console.log" 2>&1 {lock_fd}>&- &
    echo $! >"$state/boot.pid"

    machine_await
    machine_install
    say "is up: $SUITE, $(machine_exec systemctl --version | head -n 1), in $(since "$started") s"
}

machine_await() {
    until_true "$LAB_TIMEOUT" booted || machine_failed "did not boot in $LAB_TIMEOUT s"
    [ -e "$state/ready" ] || machine_failed "died while booting"
    ln -sfn "/proc/$(cat "$state/init.pid")/root/run/lrd.sock" "$state/lrd.sock"
    local broken
    broken=$(machine_exec systemctl list-units --failed --plain --no-legend --no-pager | cut -d' ' -f1 | tr '\n' ' ')
    [ -z "$broken" ] || say "units that failed at boot: $broken"
}

# machine_reboot stops the lab's system and boots the same root again; what was in /run is gone, as on any machine.
machine_reboot() {
    local started=$EPOCHREALTIME init
    init=$(machine_pid)
    rm -f "$state/ready"
    kill -s RTMIN+5 "$init" # "reboot" for a systemd that is PID 1
    until_true "$LAB_TIMEOUT" gone "$init" || machine_failed "did not go down in $LAB_TIMEOUT s"
    rm -f "$state/init.pid"
    machine_await
    say "is up again, in $(since "$started") s"
}

since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

machine_failed() {
    say "$1; the end of its console:"
    tail -n 40 "$state/console.log" >&2 || true
    machine_down || true
    exit 1
}

# booted: true once there is nothing to wait for, either because systemd is up or because it died.
booted() {
    ! gone "$(cat "$state/boot.pid")" || return 0
    [ -s "$state/init.pid" ] || find_init || return 1
    case $(machine_exec systemctl is-system-running 2>/dev/null) in
    running | degraded) touch "$state/ready" ;;
    *) return 1 ;;
    esac
}

# machine_boot is the lab's outermost process, in a mount namespace of its own: the mounts live as long as it.
machine_boot() {
    local root=$state/fs/root entry status
    if [ ! -d /run/systemd/system ]; then
        for entry in $(cgroup_roots); do echo $$ >"$entry$cgroup/cgroup.procs"; done
    fi
    mkdir -p "$state/fs"
    mount -t tmpfs -o mode=755 "$machine" "$state/fs"
    mkdir "$root" "$state/fs/upper" "$state/fs/work" "$state"/fs/{lrd,containers,registry}
    mount -t overlay -o "lowerdir=$(cat "$state/lower"),upperdir=$state/fs/upper,workdir=$state/fs/work" "$machine" "$root"
    tree_prepare "$root"

    # An overlay cannot be the upper layer of another one: where a store makes overlays is a directory of the tmpfs.
    # crun needs keyctl, and lrd is to meet the system calls of a real machine, hence the filter.
    # No new session for the kernel's keyring, no registration: there need not be a systemd on this machine.
    cd /
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    while :; do
        systemd-nspawn --boot --quiet --directory="$root" --machine="$machine" --hostname="$machine" \
            --register=no --keep-unit --private-network --capability=all --system-call-filter=@known \
            --link-journal=no --resolv-conf=off --timezone=off --console=read-only \
            --bind="$state/fs/lrd:/var/lib/lrd" --bind="$state/fs/containers:/var/lib/containers" \
            --bind="$state/fs/registry:/var/lib/docker-registry" &
        echo $! >"$state/nspawn.pid"
        status=0
        wait $! || status=$?
        [ $status -eq 133 ] || exit $status # 133: the lab asked for a reboot
    done
}

# machine_exec COMMAND…: in all namespaces and in the control groups of the lab, with a clean environment.
# Tests call this very often: no process is started that is not needed.
machine_exec() {
    [ $# -gt 0 ] || die "exec: which command?"
    machine_runs || die "is not up"
    local init group
    read -r init 2>/dev/null <"$state/init.pid" || die "has not booted yet"
    # A leaf of our own: systemd leaves alone what it does not know, and the lab's end takes it along.
    group=$(machine_cgroup "$init")/exec.lab
    [ -d "$group" ] || mkdir -p "$group"
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec nsenter --target "$init" --all -- /usr/bin/env -i \
            HOME=/root USER=root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
    )
}

# machine_cgroup INIT: the directory of the lab's own control group root, which is where its init.scope is.
machine_cgroup() {
    local line root
    for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        [ ! -e "$root/cgroup.controllers" ] || break
    done
    while IFS= read -r line; do
        [[ $line != 0::* ]] || { line=${line#0::}; echo "$root${line%/init.scope}"; }
    done <"/proc/$1/cgroup"
}

machine_env() {
    machine_pid >/dev/null
    echo "export DOCKER_HOST=unix://$state/lrd.sock"
}

machine_status() {
    if ! machine_runs; then
        echo "lab $LAB is down"
        return 3
    fi
    echo "lab $LAB is up: $(cat "$state/suite"), init $(machine_pid)"
    machine_exec systemctl list-units --all --no-pager --plain --no-legend 'lrd*' || true
    machine_exec systemctl list-units --failed --no-pager --plain --no-legend || true
}

# machine_install does what lrd's package does, with the same recipe: `make install`, then what a maintainer script runs.
machine_install() {
    local init bin_dir
    init=$(machine_pid)
    LRD_BIN=$(realpath -m "$LRD_BIN")
    bin_dir=${LRD_BIN%/*}
    # Also below another make, whose variables and job server are not ours.
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make --no-print-directory -s -C "$repo" install \
        DESTDIR="/proc/$init/root" PREFIX=/usr BIN="$bin_dir" LRD_BIN="$LRD_BIN" >&2
    # shellcheck disable=SC2016 # expands in the lab
    machine_exec sh -ec '
        units=/usr/lib/systemd/system
        [ ! -e /usr/lib/sysusers.d/lrd.conf ] || systemd-sysusers lrd.conf
        [ ! -e /usr/lib/tmpfiles.d/lrd.conf ] || systemd-tmpfiles --create lrd.conf
        systemctl daemon-reload
        [ -e $units/lrd.socket ] || exit 0
        systemctl --quiet enable lrd.socket
        systemctl start lrd.socket
        [ -x /usr/bin/lrd ] || { echo "no lrd in this lab yet: LRD_BIN is not there" >&2; exit 0; }
        systemctl --quiet enable lrd.service
        systemctl try-restart lrd.service
    '
}

machine_down() {
    local boot="" init=""
    if machine_runs; then
        read -r boot <"$state/boot.pid"
        [ -s "$state/init.pid" ] || find_init || true
        read -r init 2>/dev/null <"$state/init.pid" || true
        # "halt" for a systemd that is PID 1.
        [ -z "$init" ] || kill -s RTMIN+3 "$init" 2>/dev/null || true
        if ! until_true "${LAB_STOP_TIMEOUT:-30}" gone "$boot"; then
            say "does not stop, killing it"
            [ -z "$init" ] || kill -s KILL "$init" 2>/dev/null || true
            until_true 30 gone "$boot" || kill -s KILL "$boot" 2>/dev/null || true
        fi
    fi
    machine_sweep
    rm -f "$lock"
    machine_left_nothing
}

# gone PID: ended; whether its parent has noticed yet is not our matter.
gone() {
    local stat
    read -r -a stat 2>/dev/null <"/proc/$1/stat" || return 0
    [ "${stat[2]}" = Z ]
}

# machine_sweep removes what a lab that does not run has left.
machine_sweep() {
    local root pids
    [ ! -d /run/systemd/system ] || systemctl --quiet stop "$machine.scope" 2>/dev/null || true
    for root in $(cgroup_roots); do
        [ -d "$root$cgroup" ] || continue
        mapfile -t pids < <(find "$root$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null)
        [ ${#pids[@]} -eq 0 ] || kill -s KILL "${pids[@]}" 2>/dev/null || true
        until_true 60 cgroup_removed "$root$cgroup" || true
        rmdir "$root/lrd-lab" 2>/dev/null || true # the last lab takes it along
    done
    rm -rf --one-file-system "$state"
    rmdir "$state_root" 2>/dev/null || true
    rm -rf "/run/systemd/nspawn/propagate/$machine" "/run/systemd/nspawn/unix-export/$machine"
}

cgroup_removed() {
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ ! -d "$1" ]
}

machine_left_nothing() {
    local left=""
    ! grep -q "$state" /proc/self/mountinfo || left+=" mounts"
    [ ! -e "$state" ] || left+=" $state"
    local root
    for root in $(cgroup_roots); do
        [ ! -d "$root$cgroup" ] || left+=" $root$cgroup"
    done
    local file
    for file in $(grep -lsE ":$cgroup(/|$)" /proc/[0-9]*/cgroup || true); do
        file=${file#/proc/}
        gone "${file%/cgroup}" || left+=" process ${file%/cgroup}"
    done
    [ -z "$left" ] || die "down: something is left:$left"
}
