#!/bin/sh
# Prepares the machine as a host with control groups of version 2 only, runs each test of the payload in a process of
# its own, and tells the results in lines that begin with "@ring".
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
# Nobody else lives here: tests may set the clock.
BERTH_OWN_MACHINE=1
export PATH HOME BERTH_OWN_MACHINE

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
# Once a policy is loaded, what is here stays in the kernel's domain, which may do everything.
if mount -t selinuxfs selinuxfs /sys/fs/selinux 2>/dev/null; then
    categories=$(seq -f 'category c%g;' 0 1023)
    while read -r line; do
        [ "$line" = @CATEGORIES@ ] && line=$categories
        echo "$line"
    done </run/policy.conf >/run/policy.full
    checkpolicy -M -U allow -o /run/policy /run/policy.full >/run/output 2>&1 || cat /run/output
    # The kernel takes it in one piece.
    dd if=/run/policy of=/sys/fs/selinux/load bs=4M 2>/dev/null
    echo 1 >/sys/fs/selinux/enforce
    mkdir -p /etc/selinux/berth/contexts
    echo SELINUXTYPE=berth >/etc/selinux/config
    printf '%s\n' 'process = "system_u:system_r:container_t:s0"' 'file = "system_u:object_r:container_file_t:s0"' \
        'ro_file = "system_u:object_r:container_ro_file_t:s0"' >/etc/selinux/berth/contexts/lxc_contexts
fi
mkswap /dev/vdc >/dev/null 2>&1 && swapon /dev/vdc
echo 8 >/proc/sys/vm/nr_hugepages
modprobe bfq 2>/dev/null && echo bfq >/sys/block/vda/queue/scheduler
modprobe -a overlay loop
# A device for remote memory access over a network that leads nowhere, where tests want one.
if grep -q rdma /payload/tests.*; then
    modprobe rdma_rxe && ip link add rdma0 type dummy && ip link set rdma0 up && rdma link add rxe0 type rxe netdev rdma0
fi
# Whoever runs the tests is in a group of its own, as under any init system.
mkdir /sys/fs/cgroup/ring
echo $$ >/sys/fs/cgroup/ring/cgroup.procs

while read -r directory; do
    mkdir -p "$directory"
    mount --bind "/payload/files$directory" "$directory"
done </payload/mounts

guard=$(sed -n 's/.*security=\([a-z]*\).*/\1/p' /proc/cmdline)
echo "@ring kernel $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers); $guard"
while read -r name test program directory <&3; do
    cd "$directory" || continue
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
done 3<"/payload/tests.$guard"
echo "@ring done"
sync
echo o >/proc/sysrq-trigger
sleep 60
