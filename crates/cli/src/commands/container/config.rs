//! From the flags of `run` and `create` to the body of the create request.

use crate::flags::Matches;
use crate::flags::parse::parse_bool;
use crate::grammar::devices::list;
use crate::grammar::{devices, env, hosts, limits, modes, mounts, network, ports, security};
use api_types::{ContainerConfig, CreateContainerRequest, HealthConfig, HostConfig, List, LogConfig, Map};

/// Reads all flags that describe a container. `matches.args` are the image, the command and its arguments.
pub fn request(matches: &Matches) -> Result<CreateContainerRequest, String> {
    let attach: Vec<String> = matches
        .list("attach")
        .iter()
        .map(|text| text.to_ascii_lowercase())
        .collect();
    let attached = |name: &str| attach.iter().any(|stream| stream == name);
    let interactive = matches.bool("interactive");
    let attach_stdin = attached("stdin") || interactive;
    let (binds, anonymous) = mounts::volumes(matches.list("volume"))?;
    let mut published = ports::publish(matches.list("publish"))?;
    ports::expose(matches.list("expose"), &mut published.exposed)?;
    let profile = security::options(matches.list("security-opt"))?;
    let (device_mappings, device_requests) = devices::devices(matches.list("device"))?;
    modes::pid(text(matches, "pid"))?;
    modes::uts(text(matches, "uts"))?;
    let userns_mode = modes::userns(text(matches, "userns"), caller())?;
    modes::cgroupns(text(matches, "cgroupns"))?;
    let restart_policy = modes::restart(matches.text_or_default("restart"))?;
    let swappiness = matches.int("memory-swappiness").unwrap_or(-1);
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        ));
    }
    let both = |flag: &'static str, alias: &'static str| {
        let mut all = matches.list(alias).to_vec();
        all.extend(matches.list(flag).iter().cloned());
        all
    };
    let networks: Result<Vec<_>, _> = both("network", "net")
        .iter()
        .map(|text| network::attachment(text))
        .collect();
    let aliases = both("network-alias", "net-alias");
    let dns_options = both("dns-option", "dns-opt");
    let links = matches.list("link");
    let (network_mode, networking) = network::endpoints(
        networks?,
        &network::Defaults {
            aliases: &aliases,
            links,
            ipv4: matches.text("ip"),
            ipv6: matches.text("ip6"),
            mac: matches.text("mac-address").filter(|text| !text.is_empty()),
            link_local: matches.list("link-local-ip"),
        },
    )?;
    let entrypoint = match matches.text("entrypoint") {
        None => List::null(),
        Some(program) => List::from(vec![program.to_owned()]),
    };
    let command = matches.args.get(1..).unwrap_or_default().to_vec();
    let config = ContainerConfig {
        hostname: text(matches, "hostname").to_owned(),
        domainname: text(matches, "domainname").to_owned(),
        user: text(matches, "user").to_owned(),
        attach_stdin,
        attach_stdout: attach.is_empty() || attached("stdout"),
        attach_stderr: attach.is_empty() || attached("stderr"),
        exposed_ports: published.exposed,
        tty: matches.bool("tty"),
        open_stdin: interactive,
        stdin_once: interactive && attach_stdin,
        env: list(env::environment(matches.list("env-file"), matches.list("env"))?),
        cmd: list(command),
        healthcheck: health(matches)?,
        image: matches.arg(0).to_owned(),
        volumes: anonymous.or_empty(),
        working_dir: text(matches, "workdir").to_owned(),
        entrypoint,
        labels: env::labels(matches.list("label-file"), matches.list("label"))?,
        stop_signal: text(matches, "stop-signal").to_owned(),
        stop_timeout: matches.int("stop-timeout"),
        ..ContainerConfig::default()
    };
    let auto_remove = matches.bool("rm");
    if auto_remove && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".into());
    }
    let host = HostConfig {
        binds: list(binds),
        container_id_file: text(matches, "cidfile").to_owned(),
        log_config: logging(matches)?,
        network_mode,
        port_bindings: published.bindings,
        restart_policy,
        auto_remove,
        volume_driver: text(matches, "volume-driver").to_owned(),
        volumes_from: list(matches.list("volumes-from").to_vec()),
        annotations: annotations(matches),
        cap_add: list(security::capabilities(matches.list("cap-add"))),
        cap_drop: list(security::capabilities(matches.list("cap-drop"))),
        cgroupns_mode: text(matches, "cgroupns").to_owned(),
        dns: List::from(trimmed(matches.list("dns"))),
        dns_options: List::from(dns_options),
        dns_search: List::from(search(matches.list("dns-search"))),
        extra_hosts: list(
            matches
                .list("add-host")
                .iter()
                .map(|text| hosts::add_host(text))
                .collect::<Result<_, _>>()?,
        ),
        group_add: list(matches.list("group-add").to_vec()),
        ipc_mode: text(matches, "ipc").to_owned(),
        links: list(links.to_vec()),
        oom_score_adj: matches.int("oom-score-adj").unwrap_or(0),
        pid_mode: text(matches, "pid").to_owned(),
        privileged: matches.bool("privileged"),
        publish_all_ports: matches.bool("publish-all"),
        readonly_rootfs: matches.bool("read-only"),
        security_opt: list(profile.options),
        storage_opt: storage(matches)?,
        tmpfs: tmpfs(matches.list("tmpfs")),
        uts_mode: text(matches, "uts").to_owned(),
        userns_mode,
        shm_size: matches.bytes("shm-size").unwrap_or(0),
        sysctls: env::pairs(matches.list("sysctl")),
        runtime: text(matches, "runtime").to_owned(),
        isolation: text(matches, "isolation").to_owned(),
        cpu_shares: matches.int("cpu-shares").unwrap_or(0),
        memory: matches.bytes("memory").unwrap_or(0),
        nano_cpus: matches.text("cpus").map_or(Ok(0), limits::nano_cpus)?,
        cgroup_parent: text(matches, "cgroup-parent").to_owned(),
        blkio_weight: matches
            .text("blkio-weight")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        blkio_weight_device: each(matches.list("blkio-weight-device"), limits::weight)?,
        blkio_device_read_bps: each(matches.list("device-read-bps"), limits::throttle_bytes)?,
        blkio_device_write_bps: each(matches.list("device-write-bps"), limits::throttle_bytes)?,
        blkio_device_read_iops: each(matches.list("device-read-iops"), limits::throttle_operations)?,
        blkio_device_write_iops: each(matches.list("device-write-iops"), limits::throttle_operations)?,
        cpu_period: matches.int("cpu-period").unwrap_or(0),
        cpu_quota: matches.int("cpu-quota").unwrap_or(0),
        cpu_realtime_period: matches.int("cpu-rt-period").unwrap_or(0),
        cpu_realtime_runtime: matches.int("cpu-rt-runtime").unwrap_or(0),
        cpuset_cpus: text(matches, "cpuset-cpus").to_owned(),
        cpuset_mems: text(matches, "cpuset-mems").to_owned(),
        devices: List::from(device_mappings),
        device_cgroup_rules: list(matches.list("device-cgroup-rule").to_vec()),
        device_requests: list(device_requests),
        memory_reservation: matches.bytes("memory-reservation").unwrap_or(0),
        memory_swap: matches.bytes("memory-swap").unwrap_or(0),
        memory_swappiness: Some(swappiness),
        oom_kill_disable: Some(matches.bool("oom-kill-disable")),
        pids_limit: Some(matches.int("pids-limit").unwrap_or(0)),
        ulimits: List::from(each(matches.list("ulimit"), limits::ulimit)?.into_vec()),
        cpu_count: matches.int("cpu-count").unwrap_or(0),
        cpu_percent: matches.int("cpu-percent").unwrap_or(0),
        mounts: list(
            matches
                .list("mount")
                .iter()
                .map(|text| mounts::mount(text))
                .collect::<Result<_, _>>()?,
        ),
        masked_paths: profile.masked_paths,
        readonly_paths: profile.readonly_paths,
        init: matches.text("init").map(|text| parse_bool(text).unwrap_or(false)),
        ..HostConfig::default()
    };
    Ok(CreateContainerRequest {
        config,
        host_config: Some(host),
        networking_config: Some(networking),
    })
}

/// Who runs the client.
/// What is handed through, and what the engine is told by such.
fn annotations(matches: &Matches) -> Map<String> {
    let mut annotations = env::pairs(matches.list("annotation"));
    let offsets = matches.list("time-offset");
    if !offsets.is_empty() {
        annotations.insert("io.berth.time-offset".to_owned(), offsets.join(","));
    }
    annotations
}

fn caller() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

fn text<'a>(matches: &'a Matches, flag: &str) -> &'a str {
    matches.text(flag).unwrap_or_default()
}

fn each<T>(texts: &[String], read: fn(&str) -> Result<T, String>) -> Result<List<T>, String> {
    texts
        .iter()
        .map(|text| read(text))
        .collect::<Result<Vec<_>, _>>()
        .map(List::from)
}

fn trimmed(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| text.trim().to_owned()).collect()
}

/// A lone dot asks for no search domains at all, and is sent as it is.
fn search(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .map(|text| text.trim_matches(' ').to_owned())
        .collect()
}

fn logging(matches: &Matches) -> Result<LogConfig, String> {
    let kind = text(matches, "log-driver");
    let options = matches.list("log-opt");
    if kind == "none" && !options.is_empty() {
        return Err("invalid logging opts for driver none".into());
    }
    Ok(LogConfig {
        kind: kind.to_owned(),
        config: env::pairs(options),
    })
}

fn storage(matches: &Matches) -> Result<Map<String>, String> {
    if matches.list("storage-opt").iter().any(|text| !text.contains('=')) {
        return Err("invalid storage option".into());
    }
    Ok(env::pairs(matches.list("storage-opt")))
}

fn tmpfs(texts: &[String]) -> Map<String> {
    let pair = |text: &String| {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        (target.to_owned(), options.to_owned())
    };
    texts.iter().map(pair).collect()
}

fn health(matches: &Matches) -> Result<Option<HealthConfig>, String> {
    let command = text(matches, "health-cmd");
    let time = |flag: &str| match matches.duration(flag).unwrap_or(0) {
        negative if negative < 0 => Err(format!("--{flag} cannot be negative")),
        nanos => Ok(nanos),
    };
    let on_failure = text(matches, "health-on-failure");
    let set = !command.is_empty()
        || !on_failure.is_empty()
        || [
            "health-interval",
            "health-timeout",
            "health-start-period",
            "health-start-interval",
        ]
        .iter()
        .any(|flag| matches.duration(flag).unwrap_or(0) != 0)
        || matches.int("health-retries").unwrap_or(0) != 0;
    if matches.bool("no-healthcheck") {
        if set {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(Some(HealthConfig {
            test: vec!["NONE".to_owned()].into(),
            ..HealthConfig::default()
        }));
    }
    if !set {
        return Ok(None);
    }
    let retries = matches.int("health-retries").unwrap_or(0);
    let (interval, timeout) = (time("health-interval")?, time("health-timeout")?);
    if retries < 0 {
        return Err("--health-retries cannot be negative".into());
    }
    let test = if command.is_empty() {
        Vec::new()
    } else {
        vec!["CMD-SHELL".to_owned(), command.to_owned()]
    };
    Ok(Some(HealthConfig {
        test: list(test),
        interval,
        timeout,
        start_period: time("health-start-period")?,
        start_interval: time("health-start-interval")?,
        retries,
        on_failure: on_failure.to_owned(),
    }))
}
