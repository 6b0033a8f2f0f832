# Run by mmdebstrap when the root ($1) is complete: the kernel goes to $2/vmlinuz, its modules into the root.
# The package is unpacked, not installed: it would want an initramfs and a boot loader.
# It is the kernel for real machines, not the one for clouds, which has no RDMA over plain networks; what drives hardware
# that the machine does not have is left out.
set -eu
root=$1
out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
name=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
apt-get -q -o APT::Sandbox::User=root download "$name" >/dev/null
dpkg-deb -x ./*.deb unpacked
cp unpacked/boot/vmlinuz-* "$out/vmlinuz"
mkdir -p "$root/usr/lib/modules"
mv unpacked/lib/modules/* "$root/usr/lib/modules/"
for version in "$root"/usr/lib/modules/*; do
    (cd "$version/kernel" && rm -rf sound drivers/gpu drivers/media drivers/usb drivers/iio drivers/hwmon drivers/staging \
        drivers/hid drivers/scsi drivers/platform drivers/infiniband/hw drivers/net/ethernet drivers/net/wireless)
    chroot "$root" depmod "$(basename "$version")"
done
