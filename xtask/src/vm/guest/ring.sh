#!/bin/sh
# Prepares the machine as a host with control groups of version 2 only, runs each test of the payload in a process of
# its own, and tells the results in lines that begin with "@ring".
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
export PATH HOME

mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t hugetlbfs hugetlbfs /dev/hugepages 2>/dev/null
ip link set lo up
hostname berth-vm
mkswap /dev/vdc >/dev/null 2>&1 && swapon /dev/vdc
echo 8 >/proc/sys/vm/nr_hugepages
modprobe bfq 2>/dev/null && echo bfq >/sys/block/vda/queue/scheduler
modprobe overlay
# Whoever runs the tests is in a group of its own, as under any init system.
mkdir /sys/fs/cgroup/ring
echo $$ >/sys/fs/cgroup/ring/cgroup.procs

while read -r directory; do
    mkdir -p "$directory"
    mount --bind "/payload/files$directory" "$directory"
done </payload/mounts

echo "@ring kernel $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
while read -r name program directory; do
    cd "$directory" || continue
    "$program" --list --format terse 2>/dev/null | sed -n 's/: test$//p' >/run/tests
    while read -r test <&3; do
        wanted=yes
        while read -r word; do
            case "$name::$test" in
            *"$word"*) ;;
            *) wanted=no ;;
            esac
        done </payload/filter
        [ $wanted = yes ] || continue
        begin=$(date +%s)
        timeout -k 5 "$(cat /payload/patience)" "$program" --exact "$test" --nocapture >/run/output 2>&1 </dev/null 3<&-
        code=$?
        took=$(($(date +%s) - begin))
        if [ $code -ne 0 ]; then
            echo "@ring fail $took $name::$test"
            echo "exit code $code"
            cat /run/output
        elif reason=$(sed -n 's/^.*skipped: *//p' /run/output) && [ -n "$reason" ]; then
            echo "@ring skip $took $name::$test: $(echo "$reason" | head -n 1)"
        else
            echo "@ring pass $took $name::$test"
        fi
    done 3</run/tests
done </payload/tests
echo "@ring done"
sync
echo o >/proc/sysrq-trigger
sleep 60
