# shellcheck shell=bash disable=SC2154 # the parts of one script use each other's variables
# What the labs, the tests and the build need, and how a Debian-like machine gets it.

# group: command=package…; an absolute path stands for a file that is not in PATH.
deps_of() {
    case $1 in
    lab) echo systemd-nspawn=systemd-container /lib/systemd/systemd=systemd dbus-daemon=dbus crun=crun nft=nftables ip=iproute2 \
        busybox=busybox-static tini-static=tini jq=jq flock=util-linux make=make ;;
    trixie) echo mmdebstrap=mmdebstrap ;;
    test) echo docker-registry=docker-registry skopeo=skopeo buildah=buildah docker-compose=docker-compose wrk=wrk \
        node=nodejs npm=npm \
        gcc=gcc /usr/include/stdio.h=libc6-dev git=git curl=curl ;;
    vm) echo qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap /usr/sbin/mkfs.ext4=e2fsprogs ;;
    lint) echo shellcheck=shellcheck ;;
    *) die "deps: no group '$1'" ;;
    esac
}

# deps_install GROUP…|all: asks apt only for what is missing, so that a complete machine pays nothing.
# all is without vm, which is large and for one target.
deps_install() {
    local group entry have package missing=()
    [ "${*}" != all ] || set -- lab trixie test lint
    for group; do
        for entry in $(deps_of "$group"); do
            have=${entry%%=*} package=${entry#*=}
            case $have in
            /*) [ -e "$have" ] || missing+=("$package") ;;
            *) command -v "$have" >/dev/null || missing+=("$package") ;;
            esac
        done
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        apt_get install -y --no-install-recommends "${missing[@]}" || die "cannot install ${missing[*]}"
    fi
    case " $* " in *" test "*)
        client_path new >/dev/null
        client_path old >/dev/null
        ;;
    esac
    command -v go >/dev/null || say "no Go toolchain in PATH: lrd cannot be built on this machine"
}

# apt_get ARGUMENT…: with the lists it has, and if that fails, with fresh ones.
# No service of a package may start: the machine is not to change but for the files.
apt_get() {
    local policy=/usr/sbin/policy-rc.d
    command -v apt-get >/dev/null || die "this machine has no apt-get; install by hand: $*"
    [ "$(id -u)" = 0 ] || die "apt-get needs root: $*"
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        # shellcheck disable=SC2064
        trap "rm -f $policy" EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    set -- -q -o Acquire::Retries=3 "$@"
    if ! apt-get "$@" >&2; then
        apt-get -q -o Acquire::Retries=3 update >&2
        apt-get "$@" >&2
    fi
}

# client_path old|new: the path of a docker client, fetched if this machine has none.
# Both are taken out of their package: the engine in it is never installed, let alone started.
client_path() {
    local which=$1 path
    case $which in
    old)
        path=$LRD_LAB_CACHE/docker-20.10
        [ -x "$path" ] || client_extract_old "$path"
        ;;
    new)
        # The machine's own client, then that of the trixie tree: both speak a current API version.
        path=$(command -v docker || true)
        if [ -z "$path" ]; then
            path=$(tree_trixie)/usr/bin/docker
        fi
        ;;
    *) die "client: old or new, not '$which'" ;;
    esac
    [ -x "$path" ] || die "there is no $which docker client at $path"
    echo "$path"
}

# testcontainers_path: the directory with the npm package testcontainers, fetched if this machine has none.
# The version is one for the Node.js of Debian 12 too.
testcontainers_path() {
    local version=10.28.0 path
    path=$LRD_LAB_CACHE/testcontainers-$version
    mkdir -p "$LRD_LAB_CACHE"
    (
        flock 9
        [ ! -d "$path" ] || exit 0
        say "fetching testcontainers"
        rm -rf "$path.new"
        mkdir "$path.new" && cd "$path.new" || exit
        # Once more if it fails: the registry is far away. No set -e here, as somebody looks at the outcome.
        npm_install "testcontainers@$version" || npm_install "testcontainers@$version" || exit
        mv "$path.new" "$path"
    ) 9>"$LRD_LAB_CACHE/.testcontainers.lock" || die "cannot fetch testcontainers"
    echo "$path"
}

npm_install() { npm install --silent --no-package-lock --no-audit --no-fund --ignore-scripts "$@" >&2; }

# client_extract_old PATH: Debian 12's client. Elsewhere than on Debian 12, its package comes with what it depends on.
client_extract_old() {
    local path=$1 work
    say "fetching the old docker client"
    work=$(mktemp -d)
    if grep -qx VERSION_CODENAME=bookworm /etc/os-release; then
        (cd "$work" && apt_get -o APT::Sandbox::User=root download docker.io) || die "cannot download docker.io"
        dpkg-deb --extract "$work"/*.deb "$work/tree"
    else
        deps_install trixie
        mmdebstrap --quiet --aptopt='Acquire::Retries "3"' --variant=extract --include=docker.io bookworm "$work/tree" || die "cannot download docker.io"
    fi
    mkdir -p "${path%/*}"
    install -m 755 "$work/tree/usr/bin/docker" "$path.new"
    mv "$path.new" "$path"
    rm -rf "$work"
}
