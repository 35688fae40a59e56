# shellcheck shell=bash disable=SC2154 # the parts of one script use each other's variables
# What a full virtual machine boots from: Debian 13 with its own kernel, as a disk that is never written.

# vm_image: the directory with vmlinuz, initrd.img and root.ext4, built once. `make test-vm` starts qemu on them, see test/vm.
vm_image() {
    local packages image build unit
    packages=systemd,systemd-sysv,dbus,udev,kmod,crun,nftables,iproute2,busybox-static,curl,docker-cli,linux-image-cloud-amd64,e2fsprogs
    # The tests' way in: what the second disk, a tar archive, says is done at each boot.
    unit='[Unit]
Description=what the second disk says
After=dbus.socket systemd-udevd.service
[Service]
ExecStart=/bin/sh -c "[ -e /payload ] || tar -C / -xf /dev/vdb; exec sh /payload/agent"
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=multi-user.target'
    # Another recipe is another image.
    image=$LRD_LAB_CACHE/vm-$(cksum <"$here/vm.sh" | cut -d' ' -f1)
    build=$LRD_LAB_CACHE/building-vm
    mkdir -p "$LRD_LAB_CACHE"
    (
        flock 9
        [ ! -d "$image" ] || exit 0
        say "building the virtual machine's disk, once (some minutes)"
        rm -rf "$build" "$build.tree"
        mkdir "$build"
        if ! mmdebstrap --variant=minbase --mode=root --include="$packages" \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' \
            trixie "$build.tree" ${LRD_LAB_MIRROR:+"$LRD_LAB_MIRROR"} >"$build.log" 2>&1; then
            tail -n 20 "$build.log" >&2
            exit 1
        fi
        printf '%s\n' "$unit" >"$build.tree/etc/systemd/system/payload.service"
        systemctl --quiet --root="$build.tree" enable payload.service
        # Nobody logs in; what is done by the hour, at the first boot or with drivers for what is not there only takes the time of a
        # slow machine.
        systemctl --quiet --root="$build.tree" mask serial-getty@.service getty@.service timers.target e2scrub_reap.service systemd-udev-trigger.service
        touch "$build.tree/etc/.updated" "$build.tree/var/.updated"
        mkdir -p "$build.tree/var/log/journal" # where it outlives a reboot
        tr -d - </proc/sys/kernel/random/uuid >"$build.tree/etc/machine-id"
        echo vm >"$build.tree/etc/hostname"
        printf '127.0.0.1 localhost vm\n' >"$build.tree/etc/hosts"
        cp "$build.tree"/boot/vmlinuz-* "$build/vmlinuz"
        cp "$build.tree"/boot/initrd.img-* "$build/initrd.img"
        rm -rf "$build.tree"/boot/* "$build.tree"/var/cache/apt/* "$build.tree"/var/lib/apt/lists/*
        mkfs.ext4 -q -L root -d "$build.tree" "$build/root.ext4" 3G >>"$build.log" 2>&1
        rm -rf "$build.tree"
        mv "$build" "$image"
    ) 9>"$LRD_LAB_CACHE/.vm.lock" || die "cannot build the virtual machine's disk"
    echo "$image"
}
