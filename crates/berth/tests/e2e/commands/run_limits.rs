//! `run`: limits, as the process inside finds them. Control groups of either version are read.

use super::script::both;

#[test]
fn limits() {
    guard!();
    both(
        r#"
        $ run --rm -m 64m box:1 sh -c "cd /sys/fs/cgroup; cat memory.max || cat memory/memory.limit_in_bytes"
        67108864
        $ run --rm -m 64m --memory-swap 96m box:1 sh -c "cd /sys/fs/cgroup; if [ -f memory.max ]; then echo $(( $(cat memory.max) + $(cat memory.swap.max) )); else cat memory/memory.memsw.limit_in_bytes; fi"
        100663296
        $ run --rm -m 1m box:1 true
        ! Minimum memory limit allowed is 6MB
        [125]
        $ run --rm -m 64m --memory-swap 32m box:1 true
        ! Minimum memoryswap limit should be larger than memory limit
        [125]
        $ run --rm -m much box:1 true
        ! invalid
        [125]
        $ run --rm --cpus 0.5 box:1 sh -c "cd /sys/fs/cgroup; if [ -f cpu.max ]; then cat cpu.max; else echo $(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us); fi"
        50000 100000
        $ run --rm --cpu-shares 512 box:1 sh -c "cd /sys/fs/cgroup; if [ -f cpu/cpu.shares ]; then cat cpu/cpu.shares; else [ $(cat cpu.weight) -lt 100 ] && echo 512; fi"
        512
        $ run --rm --cpuset-cpus 0 box:1 busybox nproc
        1
        $ run --rm --cpuset-cpus 9999 box:1 true
        ! 9999
        [125]
        $ run --rm --pids-limit 20 box:1 sh -c "cd /sys/fs/cgroup; cat pids.max || cat pids/pids.max"
        20
        $ run --rm --pids-limit 3 box:1 sh -c "sleep 0.2 & sleep 0.2 & sleep 0.2 & true"
        ! can't fork
        [2]
        $ run --rm --ulimit nofile=100:200 --ulimit core=0 box:1 sh -c "ulimit -n; ulimit -Hn; ulimit -c"
        100
        200
        0
        $ run --rm --ulimit nofile=200:100 box:1 true
        ! soft limit must be less than or equal to hard limit
        [125]
        $ run --rm --ulimit frob=1 box:1 true
        ! frob
        [125]
        $ run --rm --shm-size 8m box:1 sh -c "busybox df -k /dev/shm | busybox awk 'NR==2 {print $2}'"
        8192
        $ run --rm --oom-score-adj 500 box:1 cat /proc/self/oom_score_adj
        500
        $ run --rm --sysctl net.core.somaxconn=77 box:1 cat /proc/sys/net/core/somaxconn
        77
        $ run -d --name limited -m 64m --cpus 0.5 box:1 sleep 1000
        <id>
        $ update -m 128m --memory-swap 128m limited
        limited
        $ exec limited sh -c "cd /sys/fs/cgroup; cat memory.max || cat memory/memory.limit_in_bytes"
        134217728
        $ stats --no-stream --format "{{.Name}} {{.PIDs}}" limited
        limited 1
        "#,
    );
}

#[test]
fn a_process_that_takes_too_much_is_told_of() {
    guard!();
    both(
        r#"
        $ run --name eats -m 16m --memory-swap 16m box:1 sh -c "x=1234567890; while true; do x=$x$x; done"
        [137]
        $ inspect -f "{{.State.OOMKilled}} {{.State.ExitCode}}" eats
        true 137
        "#,
    );
}
