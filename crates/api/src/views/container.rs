//! Containers as inspect and list show them.

use api_types::container::{RootFsStorage, RootFsStorageSnapshot, Storage};
use api_types::{
    ContainerInspect, ContainerState, ContainerSummary, Descriptor, EndpointSettings, HealthSummary, List,
    Map, NetworkSettings, NetworkSettingsSummary, PortBinding, PortMap, PortSummary, SummaryHostConfig,
};
use engine::image::ImageIds;
use engine::{Container, Sizes, Status};
use jiff::Timestamp;

use super::status::{Life, sentence};
use super::{descriptor, null_when_empty, platform, time};

/// `GET /containers/{id}/json`; `storage` is the name of the storage driver.
pub fn inspect(
    container: &Container,
    ids: ImageIds,
    storage: &str,
    sizes: Option<Sizes>,
) -> ContainerInspect {
    ContainerInspect {
        id: container.id.to_string(),
        created: container.created.to_string(),
        path: container.path.clone(),
        args: container.args.clone(),
        state: state(container),
        image: container.shown_image(ids).to_string(),
        resolv_conf_path: container.files.resolv_conf.clone(),
        hostname_path: container.files.hostname.clone(),
        hosts_path: container.files.hosts.clone(),
        log_path: container.files.log.clone(),
        name: format!("/{}", container.name),
        restart_count: container.restart_count,
        driver: storage.to_owned(),
        platform: container.platform.os.clone(),
        mount_label: container.mount_label.clone(),
        process_label: container.process_label.clone(),
        app_armor_profile: container.apparmor_profile.clone(),
        exec_ids: null_when_empty(container.exec_ids.clone()),
        host_config: (*container.host_config).clone(),
        storage: Some(Storage {
            root_fs: Some(RootFsStorage {
                snapshot: Some(RootFsStorageSnapshot {
                    name: storage.to_owned(),
                }),
            }),
        }),
        size_rw: sizes.map(|sizes| sizes.rw),
        size_root_fs: sizes.map(|sizes| sizes.root_fs),
        mounts: container.mounts.clone(),
        config: (*container.config).clone(),
        network_settings: NetworkSettings {
            sandbox_id: container.sandbox_id.clone(),
            sandbox_key: sandbox_key(container),
            ports: (*container.ports).clone().or_empty(),
            networks: endpoints(container, |settings| settings.clone()),
        },
        image_manifest_descriptor: manifest(container),
        ..ContainerInspect::default()
    }
}

/// A row of `GET /containers/json` as of `now`; `image` is what the image is called today.
pub fn summary(
    container: &Container,
    image: String,
    ids: ImageIds,
    sizes: Option<Sizes>,
    now: Timestamp,
) -> ContainerSummary {
    let health = container.state.health.as_ref();
    ContainerSummary {
        id: container.id.to_string(),
        names: List::from(vec![format!("/{}", container.name)]),
        image,
        image_id: container.shown_image(ids).to_string(),
        image_manifest_descriptor: manifest(container),
        command: command(container),
        created: container.created.as_second(),
        ports: ports(&container.ports),
        size_rw: sizes.map_or(0, |sizes| sizes.rw),
        size_root_fs: sizes.map_or(0, |sizes| sizes.root_fs),
        labels: container.config.labels.clone().or_empty(),
        state: container.state.status.as_str().to_owned(),
        status: sentence(
            Life {
                status: container.state.status,
                exit_code: container.state.exit_code,
                started_at: container.state.started_at,
                finished_at: container.state.finished_at,
                health: health.map(|health| health.status.as_str()),
                silent: container.silent_since.is_some(),
            },
            now,
        ),
        host_config: SummaryHostConfig {
            network_mode: container.host_config.network_mode.clone(),
            annotations: container.host_config.annotations.clone(),
        },
        health: Some(HealthSummary {
            status: health.map_or_else(|| "none".to_owned(), |health| health.status.clone()),
            failing_streak: health.map_or(0, |health| health.failing_streak),
        }),
        network_settings: NetworkSettingsSummary {
            networks: endpoints(container, what_was_given),
        },
        mounts: container.mounts.clone(),
    }
}

fn state(container: &Container) -> ContainerState {
    let state = &container.state;
    ContainerState {
        status: state.status.as_str().to_owned(),
        // A paused or restarting container counts as running too.
        running: matches!(
            state.status,
            Status::Running | Status::Paused | Status::Restarting
        ),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: i64::from(state.pid),
        exit_code: i64::from(state.exit_code),
        error: match container.silent_since {
            Some(_) => container.silence(),
            None => state.error.clone(),
        },
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: state.health.clone(),
    }
}

/// A path that opens the network namespace while the container runs.
fn sandbox_key(container: &Container) -> String {
    if container.state.pid > 0 && container.state.status.is_alive() {
        format!("/proc/{}/ns/net", container.state.pid)
    } else {
        String::new()
    }
}

fn endpoints(
    container: &Container,
    show: impl Fn(&EndpointSettings) -> EndpointSettings,
) -> Map<EndpointSettings> {
    container
        .networks
        .iter()
        .map(|(name, settings)| (name.clone(), show(settings)))
        .collect()
}

/// The list leaves out what was asked for.
fn what_was_given(settings: &EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        links: List::null(),
        aliases: List::null(),
        driver_opts: Map::null(),
        dns_names: List::null(),
        ipam_config: settings.ipam_config.clone(),
        gw_priority: settings.gw_priority,
        network_id: settings.network_id.clone(),
        endpoint_id: settings.endpoint_id.clone(),
        gateway: settings.gateway.clone(),
        ip_address: settings.ip_address.clone(),
        mac_address: settings.mac_address.clone(),
        ip_prefix_len: settings.ip_prefix_len,
        ipv6_gateway: settings.ipv6_gateway.clone(),
        global_ipv6_address: settings.global_ipv6_address.clone(),
        global_ipv6_prefix_len: settings.global_ipv6_prefix_len,
    }
}

fn manifest(container: &Container) -> Option<Descriptor> {
    let manifest = container.manifest.as_ref()?;
    Some(Descriptor {
        platform: Some(platform(&container.platform)),
        ..descriptor(manifest)
    })
}

/// The command line, with words that hold a space in quotes.
fn command(container: &Container) -> String {
    let mut text = container.path.clone();
    for word in &container.args {
        text.push(' ');
        if word.contains(' ') {
            text.push_str(&format!("'{word}'"));
        } else {
            text.push_str(word);
        }
    }
    text
}

fn ports(ports: &PortMap) -> Vec<PortSummary> {
    let mut rows = Vec::with_capacity(ports.len());
    let mut add = |private_port: u16, kind: &str, bindings: &List<PortBinding>, distance: u16| {
        let row = |ip: &str, public_port| PortSummary {
            ip: ip.to_owned(),
            private_port,
            public_port,
            kind: kind.to_owned(),
        };
        if bindings.is_empty() {
            rows.push(row("", 0));
        }
        rows.extend(bindings.iter().map(|binding| {
            let number = binding.host_port.parse().unwrap_or(0);
            // The ports of a run lead to ports side by side.
            let number = binding
                .number()
                .map_or(number, |first| first.saturating_add(distance));
            row(&binding.host_ip, number)
        }));
    };
    for (protocol, first, run) in ports.runs() {
        for n in 0..run.count {
            add(first.saturating_add(n), protocol.as_str(), &run.value, n);
        }
    }
    for (port, bindings) in ports.others() {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        if let Ok(private_port) = number.parse() {
            add(private_port, protocol, bindings, 0);
        }
    }
    rows.sort();
    rows
}
