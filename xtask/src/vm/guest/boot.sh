#!/bin/sh
# First process of the machine: finds the disks, and hands over to the ring.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do
    $b insmod "$module"
done
for disk in vda vdb vdc; do
    tries=0
    while [ ! -e /dev/$disk ] && [ $tries -lt 50 ]; do
        tries=$((tries + 1))
        $b usleep 100000
    done
done
$b mount -t ext4 /dev/vda /new || { echo '@ring broken: no disk'; $b poweroff -f; }
$b mkdir -p /new/payload
$b mount -t ext4 -o ro /dev/vdb /new/payload
for name in proc sys dev; do
    $b mount --move /$name /new/$name
done
$b mount -t tmpfs -o mode=755 run /new/run
$b cp /ring /policy.conf /new/run/
exec $b switch_root /new /run/ring
