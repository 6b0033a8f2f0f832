# First process of namespaces of its own: makes them a small host and becomes systemd. Arguments: the file for its own
# number, seen from outside, and the cgroup mounts as "target type options" lines.
set -eu
read -r pid rest </proc/self/stat
echo "$pid" >"$1.new"
mount -t proc proc /proc
mount -t tmpfs -o mode=755 etc /etc
mount -t tmpfs -o mode=755 run /run
umount -R /sys/fs/cgroup
case $2 in
*" /sys/fs/cgroup") ;;
*) mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup ;;
esac
echo "$2" | while read -r type options target; do
    mkdir -p "$target"
    mount -t "$type" -o "$options" "$type" "$target"
done
mkdir -p /etc/systemd/system /run/dbus
printf 'root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/:/bin/sh\n' >/etc/passwd
printf 'root:x:0:\nmessagebus:x:100:\n' >/etc/group
# An empty number is made up, and the next line keeps it where it is.
: >/etc/machine-id
printf '[Unit]\nDescription=Nothing but systemd\nDefaultDependencies=no\n' >/etc/systemd/system/berth.target
mv "$1.new" "$1"
until [ -e "$1.go" ]; do
    sleep 0.01
done
exec env -i container=berth PATH=/usr/sbin:/usr/bin:/sbin:/bin "$3" --unit=berth.target --log-target=null \
    --show-status=no
