# shellcheck shell=bash disable=SC2154 # the parts of one script use each other's variables
# The lab's root file system: a lower tree that is never written, and what makes it boot fast and alone.

# Units that a lab starts at boot, beside lrd's. Everything else that hangs in a boot target is masked:
# the machine's own services have no business in a lab, and hardware and clock are not the lab's.
tree_keeps=' dbus.service dbus.socket
 systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
 systemd-sysusers.service systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service '

# tree_lower: the path of the lower tree for $SUITE.
tree_lower() {
    case $SUITE in
    host) echo / ;;
    trixie) tree_trixie ;;
    esac
}

tree_trixie() {
    local packages tree build
    packages=systemd,systemd-sysv,dbus,crun,nftables,iproute2,busybox-static,tini,docker-cli,docker-registry,skopeo,buildah,docker-compose,wrk
    packages+=,ca-certificates,curl,jq,less,procps,iputils-ping,kmod,psmisc,strace
    packages+=${LRD_LAB_PACKAGES:+,$LRD_LAB_PACKAGES}
    # Another list is another tree: labs may be running on the old one.
    tree=$LRD_LAB_CACHE/trixie-$(cksum <<<"$packages" | cut -d' ' -f1)
    build=$LRD_LAB_CACHE/building
    mkdir -p "$LRD_LAB_CACHE"
    (
        flock 9 # two labs may come up at the same time, and one build is enough
        [ ! -d "$tree" ] || exit 0
        deps_install lab trixie
        say "building the trixie tree, once (about a minute)"
        rm -rf "$build"
        if ! mmdebstrap --variant=minbase --mode=root --aptopt='Acquire::Retries "3"' --include="$packages" \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' \
            trixie "$build" ${LRD_LAB_MIRROR:+"$LRD_LAB_MIRROR"} >"$build.log" 2>&1; then
            tail -n 20 "$build.log" >&2
            exit 1
        fi
        mv "$build" "$tree"
    ) 9>"$LRD_LAB_CACHE/.trixie.lock" || die "cannot build the trixie tree"
    echo "$tree"
}

# tree_prepare ROOT: the writable root of a lab that is about to boot.
tree_prepare() {
    local root=$1 wants unit generator
    rm -rf "${root:?}"/etc/systemd/system "$root"/etc/systemd/system-generators "$root"/etc/systemd/system.conf.d
    mkdir -p "$root"/etc/systemd/system "$root"/etc/systemd/system-generators \
        "$root"/var/lib/lrd "$root"/var/lib/containers "$root"/var/lib/docker-registry

    for wants in "$root"/usr/lib/systemd/system/*.target.wants/*; do
        unit=${wants##*/}
        [[ $tree_keeps == *" $unit"[[:space:]]* ]] || ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    # Generators turn fstab, SysV scripts and the like of the machine into units.
    for generator in "$root"/usr/lib/systemd/system-generators/*; do
        ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
    done
    ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

    # A journal in memory: it lives as long as the lab. No rate limit, tests read what they have written.
    mkdir -p "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nAudit=no\nReadKMsg=no\nForwardToSyslog=no\n' \
        >"$root/etc/systemd/journald.conf.d/lab.conf"

    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    echo "$machine" >"$root/etc/hostname"
    printf '127.0.0.1 localhost %s\n::1 localhost\n' "$machine" >"$root/etc/hosts"
    : >"$root/etc/fstab"
    # Nothing of an lrd that may be on the machine itself: what a lab has is what `install` brings.
    rm -rf "$root"/etc/lrd "$root"/usr/bin/lrd "$root"/usr/lib/systemd/system/lrd* "$root"/usr/lib/firewalld/zones/lrd.xml
}
