#!/bin/sh
# Builds the base image. Run by provision/image as root inside a mount namespace of its own, so no mount outlives it.
# Environment: WORK (empty scratch folder), FILES (recipe files), SUITE, MIRROR, SECURITY (suite line or empty), KERNEL
# (package), APTCONF (Acquire settings of this machine, used while building only). Result: $WORK/out/{image.tar.zst,manifest}.
# Lines on stdout that begin with "step: " are progress.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
root="$WORK/root" out="$WORK/out"
mkdir -p "$root" "$out"
step() { echo "step: $*"; }
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
	http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" no_proxy="${no_proxy-}" "$@"; }

step "debootstrap $SUITE from $MIRROR"
debootstrap --variant=minbase "$SUITE" "$root" "$MIRROR"

step "packages"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cat >"$root/etc/dpkg/dpkg.cfg.d/fleet" <<'X'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/lib/udev/hwdb.d/*
path-exclude=/lib/udev/hwdb.d/*
X
echo force-confold >>"$root/etc/dpkg/dpkg.cfg.d/fleet"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/build"
printf 'APT::Install-Recommends "false";\nAPT::Install-Suggests "false";\n' >"$root/etc/apt/apt.conf.d/50fleet"
cp "$APTCONF" "$root/etc/apt/apt.conf.d/99build"
cp /etc/resolv.conf "$root/etc/resolv.conf"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
	mkdir -p "$root/etc/ssl/certs"
	cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
fi
{
	echo "deb $MIRROR $SUITE main"
	[ -z "$SECURITY" ] || echo "deb $SECURITY main"
} >"$root/etc/apt/sources.list"
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/hooks" "$root/usr/lib/fleet/initramfs" "$root/usr/lib/fleet/boot"
printf 'update_initramfs=no\n' >"$root/etc/initramfs-tools/update-initramfs.conf"
printf 'MODULES=list\nCOMPRESS=zstd\nRESUME=none\nFSTYPE=ext4\n' >"$root/etc/initramfs-tools/conf.d/fleet"
printf 'HOMEHOST <ignore>\nMAILADDR root\n' >"$WORK/mdadm.conf"
mkdir -p "$root/etc/mdadm"
cp "$WORK/mdadm.conf" "$root/etc/mdadm/mdadm.conf"
in_root apt-get -q update
in_root apt-get -q -y full-upgrade
# shellcheck disable=SC2046
in_root apt-get -q -y install $(cat "$FILES/packages") "$KERNEL" grub-common grub-pc-bin grub-efi-amd64-bin

step "boot loaders"
# Made here, natively, once: on a node they are only copied. The GRUB packages are not kept: nothing on a node runs them.
modules="part_gpt ext2 mdraid1x diskfilter search search_label normal configfile linux echo test serial terminal gzio minicmd reboot"
cp "$FILES/grub-early.cfg" "$root/tmp/early.cfg"
in_root grub-mkimage -O i386-pc -o /usr/lib/fleet/boot/core.img -p /grub -c /tmp/early.cfg biosdisk $modules
in_root grub-mkimage -O x86_64-efi -o /usr/lib/fleet/boot/bootx64.efi -p /grub -c /tmp/early.cfg fat efi_gop all_video $modules
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/usr/lib/fleet/boot/boot.img"
in_root dpkg-query -W -f '${Package}=${Version}\n' >"$out/manifest"
in_root apt-get -q -y purge grub-common grub-pc-bin grub-efi-amd64-bin
in_root apt-get -q -y autoremove --purge
rm -rf "$root/boot/grub" "$root/usr/lib/grub"

step "configuration"
install -m 755 "$FILES/grub-cfg" "$root/usr/lib/fleet/grub-cfg"
for d in postinst.d postrm.d; do
	mkdir -p "$root/etc/kernel/$d"
	printf '#!/bin/sh\nexec /usr/lib/fleet/grub-cfg\n' >"$root/etc/kernel/$d/zz-fleet-boot"
	chmod 755 "$root/etc/kernel/$d/zz-fleet-boot"
done
install -m 644 "$FILES/sshd.conf" "$root/etc/ssh/sshd_config.d/10-fleet.conf"
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/dropbear/initramfs/dropbear_*_host_key
install -m 644 "$FILES/initramfs/net.sh" "$root/usr/lib/fleet/initramfs/net.sh"
install -m 644 "$FILES/initramfs/shares.sh" "$root/usr/lib/fleet/initramfs/shares.sh"
install -m 644 "$FILES/initramfs/modules" "$root/usr/lib/fleet/initramfs/modules"
install -m 755 "$FILES/initramfs/fleet-door" "$root/usr/lib/fleet/initramfs/fleet-door"
install -m 755 "$FILES/initramfs/fleet-unlock" "$root/etc/initramfs-tools/scripts/init-premount/fleet-unlock"
install -m 755 "$FILES/initramfs/fleet-mirror" "$root/etc/initramfs-tools/scripts/local-top/fleet-mirror"
install -m 755 "$FILES/initramfs/hook" "$root/etc/initramfs-tools/hooks/fleet"
printf 'DROPBEAR_SHUTDOWN_TIMEOUT=5\n' >"$root/etc/dropbear/initramfs/dropbear.conf"
cat >"$root/etc/fstab" <<'X'
/dev/mapper/fleet-root / ext4 noatime,errors=remount-ro 0 1
LABEL=fleet-boot /boot ext4 noatime,nodev,nosuid 0 2
X
echo 'fleet-root LABEL=fleet-luks none luks,discard,initramfs,no-read-workqueue,no-write-workqueue' >"$root/etc/crypttab"
cp "$WORK/mdadm.conf" "$root/etc/mdadm/mdadm.conf"
# the machine's clock is kept by timesyncd, its addresses by networkd; nothing waits for either
in_root systemctl -q enable systemd-networkd ssh fstrim.timer systemd-timesyncd
in_root systemctl -q mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
	systemd-pstore.service e2scrub_reap.service dpkg-db-backup.timer e2scrub_all.timer \
	dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount sys-kernel-config.mount
rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" "$root/etc/hostname"
printf 'uninitialized\n' >"$root/etc/machine-id"

step "initramfs"
rm -f "$root/etc/initramfs-tools/update-initramfs.conf" "$root"/boot/initrd.img-*
printf 'update_initramfs=yes\nbackup_initramfs=no\n' >"$root/etc/initramfs-tools/update-initramfs.conf"
version="$(ls "$root/lib/modules" | sort -V | tail -n 1)"
in_root update-initramfs -c -k "$version"
in_root /usr/lib/fleet/grub-cfg
in_root sh -c "lsinitramfs /boot/initrd.img-$version" >"$WORK/initramfs.list"
has() { grep -q "$1" "$WORK/initramfs.list" || { echo "the initramfs lacks $1" >&2; exit 1; }; }
for need in scripts/init-premount/fleet-unlock scripts/local-top/fleet-mirror bin/fleet-door bin/busybox etc/fleet/net.sh sbin/dropbear cryptroot/crypttab bin/cryptroot-unlock sbin/mdadm; do
	has "$need"
done
for module in nvme virtio_blk virtio_net dm-crypt xts raid1 ext4; do
	grep -q "/$module.ko" "$root/lib/modules/$version/modules.builtin" || has "/$module.ko"
done
if grep -q scripts/init-premount/dropbear "$WORK/initramfs.list"; then
	echo "dropbear's own start script is still in the initramfs" >&2
	exit 1
fi

step "trim"
in_root apt-get clean
umount "$root/proc" "$root/tmp"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/usr/share/doc-base "$root"/usr/share/locale \
	"$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/lintian "$root"/usr/share/bug
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/dpkg/dpkg.cfg.d/build" "$root/etc/apt/apt.conf.d/99build" "$root/etc/resolv.conf"
rm -rf "$root/usr/lib/udev/hwdb.bin" "$root/usr/lib/udev/hwdb.d"
rm -f "$root"/boot/System.map-* "$root"/vmlinuz* "$root"/initrd.img*
mkdir -p "$root/var/log/journal" "$root/var/cache/apt/archives/partial"
if in_root test -x /usr/sbin/update-ca-certificates; then in_root update-ca-certificates --fresh >/dev/null 2>&1 || true; fi
touch "$root/etc/.updated" "$root/var/.updated"

step "archive"
tar -C "$root" --numeric-owner --xattrs --xattrs-include='*' --sort=name --one-file-system -cf - . |
	chroot "$root" zstd -q -T0 -12 >"$out/image.tar.zst"
