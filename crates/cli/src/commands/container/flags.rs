//! The flags of `run` and `create`.

use crate::flags::Flag;
use crate::grammar::{devices, env, hosts, limits, modes, mounts, network};

fn check_mount(text: &str) -> Result<(), String> {
    mounts::mount(text).map(|_| ())
}
fn check_network(text: &str) -> Result<(), String> {
    network::attachment(text).map(|_| ())
}
fn refuse_gpus(text: &str) -> Result<(), String> {
    Err(format!(
        "GPU requests are not supported by this engine (asked for {text:?}); pass the device files with --device"
    ))
}

/// What describes a container, shared by `run` and `create`.
pub const CONTAINER: &[Flag] = &[
    Flag::list("add-host", "Add an entry to the container's hosts file (host:ip)")
        .check(hosts::check_add_host),
    Flag::list("annotation", "Hand an annotation through to the runtime").value("map"),
    Flag::list("attach", "Attach to STDIN, STDOUT or STDERR")
        .short('a')
        .check(modes::check_attach),
    Flag::uint16(
        "blkio-weight",
        "Relative weight of block I/O, 10 to 1000, or 0 for none",
    ),
    Flag::list("blkio-weight-device", "Relative weight of block I/O for a device")
        .check(limits::check_weight),
    Flag::list("cap-add", "Give a Linux capability"),
    Flag::list("cap-drop", "Take a Linux capability away"),
    Flag::text("cgroup-parent", "Cgroup below which the container's is made"),
    Flag::text("cgroupns", "Cgroup namespace: host or private"),
    Flag::text("cidfile", "Write the container's ID to this file"),
    Flag::int("cpu-count", "Number of CPUs (Windows only)").hidden(),
    Flag::int("cpu-percent", "Percent of CPUs (Windows only)").hidden(),
    Flag::int("cpu-period", "Period of the CPU quota in microseconds"),
    Flag::int("cpu-quota", "CPU time per period in microseconds"),
    Flag::int("cpu-rt-period", "Period of the real-time quota in microseconds"),
    Flag::int("cpu-rt-runtime", "Real-time CPU time per period in microseconds"),
    Flag::int("cpu-shares", "Relative weight of CPU time").short('c'),
    Flag::cpus("cpus", "Number of CPUs the container may fill"),
    Flag::text("cpuset-cpus", "CPUs to run on (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes to use (0-3, 0,1)"),
    Flag::list("device", "Give a device of the host to the container"),
    Flag::list("device-cgroup-rule", "Allow devices by a cgroup rule").check(devices::check_rule),
    Flag::list("device-read-bps", "Limit the bytes per second read from a device")
        .check(limits::check_throttle_bytes),
    Flag::list("device-read-iops", "Limit the reads per second from a device")
        .check(limits::check_throttle_operations),
    Flag::list(
        "device-write-bps",
        "Limit the bytes per second written to a device",
    )
    .check(limits::check_throttle_bytes),
    Flag::list("device-write-iops", "Limit the writes per second to a device")
        .check(limits::check_throttle_operations),
    Flag::bool("disable-content-trust", "Skip verification of image signatures")
        .default("true")
        .hidden(),
    Flag::list("dns", "Name servers to ask").check(hosts::check_dns),
    Flag::list("dns-opt", "Options of the resolver").hidden(),
    Flag::list("dns-option", "Options of the resolver"),
    Flag::list("dns-search", "Domains to search").check(hosts::check_dns_search),
    Flag::text("domainname", "NIS domain name of the container"),
    Flag::text("entrypoint", "Run this instead of the image's ENTRYPOINT"),
    Flag::list("env", "Set an environment variable")
        .short('e')
        .check(env::check_env),
    Flag::list("env-file", "Read environment variables from a file"),
    Flag::list("expose", "Expose a port or a range of ports"),
    Flag::list("gpus", "GPU devices (not supported)")
        .value("gpu-request")
        .check(refuse_gpus),
    Flag::list("group-add", "Join a further group"),
    Flag::text(
        "health-cmd",
        "Command that tells whether the container is healthy",
    ),
    Flag::duration("health-interval", "Time between two checks (ms|s|m|h)").default("0s"),
    Flag::text(
        "health-on-failure",
        "What happens when it becomes unhealthy: none, kill, restart or stop",
    ),
    Flag::int(
        "health-retries",
        "Failures in a row that make the container unhealthy",
    ),
    Flag::duration(
        "health-start-interval",
        "Time between two checks while the container starts (ms|s|m|h)",
    )
    .default("0s"),
    Flag::duration(
        "health-start-period",
        "Time to start in before failures count (ms|s|m|h)",
    )
    .default("0s"),
    Flag::duration("health-timeout", "Time one check may take (ms|s|m|h)").default("0s"),
    Flag::text("hostname", "Host name of the container").short('h'),
    Flag::bool(
        "init",
        "Run a small init inside that forwards signals and reaps processes",
    ),
    Flag::bool("interactive", "Keep STDIN open even when nobody is attached").short('i'),
    Flag::bytes("io-maxbandwidth", "Limit of I/O bandwidth (Windows only)").hidden(),
    Flag::int("io-maxiops", "Limit of I/O operations (Windows only)").hidden(),
    Flag::text("ip", "IPv4 address (172.30.100.104)").check(network::check_ip),
    Flag::text("ip6", "IPv6 address (2001:db8::33)").check(network::check_ip),
    Flag::text(
        "ipc",
        "IPC namespace: none, private, shareable, host or container:ID",
    ),
    Flag::text("isolation", "How the container is isolated"),
    Flag::bytes("kernel-memory", "Limit of kernel memory (obsolete)").hidden(),
    Flag::list("label", "Attach a label")
        .short('l')
        .check(env::check_label),
    Flag::list("label-file", "Read labels from a file of lines"),
    Flag::list("link", "Link to another container").check(hosts::check_link),
    Flag::list("link-local-ip", "Link-local addresses"),
    Flag::text("log-driver", "Where the container's output is logged"),
    Flag::list("log-opt", "Options of the log driver"),
    Flag::text("mac-address", "Hardware address (92:d0:c6:0a:29:33)"),
    Flag::bytes("memory", "Limit of memory").short('m'),
    Flag::bytes("memory-reservation", "Soft limit of memory"),
    Flag::bytes(
        "memory-swap",
        "Limit of memory and swap together, -1 for unlimited swap",
    ),
    Flag::int(
        "memory-swappiness",
        "How readily memory is swapped out (0 to 100)",
    )
    .default("-1"),
    Flag::list("mount", "Mount a volume, directory, tmpfs or image")
        .value("mount")
        .check(check_mount),
    Flag::text("name", "Name of the container"),
    Flag::list("net", "Same as --network")
        .check(check_network)
        .hidden(),
    Flag::list("net-alias", "Same as --network-alias").hidden(),
    Flag::list("network", "Join a network")
        .value("network")
        .check(check_network),
    Flag::list("network-alias", "A further name on the network"),
    Flag::bool("no-healthcheck", "Ignore the image's HEALTHCHECK"),
    Flag::bool("oom-kill-disable", "Do not kill processes when memory runs out"),
    Flag::int(
        "oom-score-adj",
        "Preference of the kernel when memory runs out (-1000 to 1000)",
    ),
    Flag::text("pid", "PID namespace: host or container:ID"),
    Flag::int("pids-limit", "Limit of processes, -1 for none"),
    Flag::text("platform", "Platform of the image, e.g. linux/arm64"),
    Flag::bool("privileged", "Give the container nearly all rights of the host"),
    Flag::list("publish", "Publish a port on the host").short('p'),
    Flag::bool("publish-all", "Publish all exposed ports on random ports").short('P'),
    Flag::text("pull", "Fetch the image: always, missing or never").default("missing"),
    Flag::bool("quiet", "Do not show the progress of fetching").short('q'),
    Flag::bool("read-only", "Mount the root filesystem read-only"),
    Flag::text("restart", "What to do when the container exits").default("no"),
    Flag::bool(
        "rm",
        "Remove the container and its anonymous volumes when it exits",
    ),
    Flag::text("runtime", "Runtime to use"),
    Flag::list("security-opt", "Security options"),
    Flag::bytes("shm-size", "Size of /dev/shm"),
    Flag::text("stop-signal", "Signal that stops the container"),
    Flag::int("stop-timeout", "Seconds to wait for the container to stop"),
    Flag::list("storage-opt", "Options of the storage driver"),
    Flag::list("sysctl", "Kernel parameters of the container")
        .value("map")
        .check(modes::check_sysctl),
    Flag::list(
        "time-offset",
        "Give the container clocks of its own: boottime=, monotonic= or both by a duration",
    )
    .value("offset"),
    Flag::list("tmpfs", "Mount a tmpfs"),
    Flag::bool("tty", "Give the container a terminal").short('t'),
    Flag::list("ulimit", "Limits of processes")
        .value("ulimit")
        .check(limits::check_ulimit),
    Flag::text("user", "User to run as (name|uid[:group|gid])").short('u'),
    Flag::text(
        "userns",
        "User namespace: host, private, auto[:size=N], keep-id[:uid=N,gid=N], container:NAME",
    ),
    Flag::text("uts", "UTS namespace: host"),
    Flag::list("volume", "Mount a volume or directory").short('v'),
    Flag::text("volume-driver", "Driver of volumes that are made"),
    Flag::list("volumes-from", "Mount the volumes of another container"),
    Flag::text("workdir", "Directory to run in").short('w'),
];

/// What only `run` has.
pub const RUN: &[Flag] = &[
    Flag::bool("detach", "Run in the background and print the container's ID").short('d'),
    Flag::text("detach-keys", "Keys that detach the terminal"),
    Flag::bool("sig-proxy", "Forward signals to the container").default("true"),
    Flag::bool("timings", "Show on standard error where the time went"),
];
