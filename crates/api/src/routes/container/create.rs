//! `POST /containers/create`.
//!
//! What a version does not know yet is ignored or refused here, so that the engine sees one form only. Source: the API's
//! version history.

use api_types::{
    CreateContainerRequest, CreateContainerResponse, EndpointSettings, HostConfig, List, Map, Mount,
    NetworkingConfig, PortBinding,
};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::CreateContainer;
use http::HeaderMap;

use crate::answer::created;
use crate::error::{ApiError, Result};
use crate::request::{Query, body, platform};
use crate::state::{AppState, carry_out};
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    version: ApiVersion,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let request = body::require(&headers, body, CreateContainerRequest::from_slice).await?;
    let platform = if version.has(41) {
        platform::slashed(&query)?
    } else {
        None
    };
    let mut host_config = request.host_config.unwrap_or_default();
    let mut networking = request.networking_config.unwrap_or_default();
    let mut config = request.config;
    default_network(&mut host_config, &mut networking);
    for mount in host_config.mounts.iter_mut() {
        adapt_mount(mount, version)?;
    }
    if !version.has(42) {
        host_config.console_size = Default::default();
    }
    if !version.has(43) {
        host_config.annotations = Map::null();
    }
    if !version.has(44) {
        if let Some(check) = &mut config.healthcheck {
            check.start_interval = 0;
        }
        one_endpoint(&networking)?;
    }
    if !version.has(48) {
        for settings in networking.endpoints_config.values_mut().flatten() {
            settings.gw_priority = 0;
        }
    }
    let mut warnings = Vec::new();
    warnings.extend(move_mac_address(
        &mut config.mac_address,
        &host_config,
        &mut networking,
        version,
    )?);
    warnings.extend(empty_bindings(&mut host_config, version));
    // Nothing, zero and less all mean "no limit".
    host_config.pids_limit = host_config.pids_limit.filter(|limit| *limit > 0);

    let create = CreateContainer {
        name: query.text("name"),
        platform,
        config,
        host_config,
        networking: Some(networking),
    };
    let made = carry_out(async move { state.engine.container_create(create).await }).await?;
    let warnings = made.warnings.into_iter().chain(warnings).collect();
    Ok(created(&CreateContainerResponse {
        id: made.id.to_string(),
        warnings,
    }))
}

/// `default` stands for the default bridge wherever it is written.
fn default_network(host_config: &mut HostConfig, networking: &mut NetworkingConfig) {
    if matches!(host_config.network_mode.as_str(), "" | "default") {
        host_config.network_mode = "bridge".to_owned();
        if let Some(settings) = networking.endpoints_config.remove("default") {
            networking.endpoints_config.insert("bridge".to_owned(), settings);
        }
    }
}

/// Options that belong to another kind of mount, or to a later version.
fn adapt_mount(mount: &mut Mount, version: ApiVersion) -> Result<()> {
    let kind = mount.kind.clone();
    if version.has(42) {
        let misplaced = |name: &str| {
            Err(ApiError::invalid(format!(
                "{name} must not be specified on mount type {kind:?}"
            )))
        };
        if mount.volume_options.is_some() && kind != "volume" {
            return misplaced("VolumeOptions");
        }
        if mount.bind_options.is_some() && kind != "bind" {
            return misplaced("BindOptions");
        }
        if mount.tmpfs_options.is_some() && kind != "tmpfs" {
            return misplaced("TmpfsOptions");
        }
    } else {
        if kind != "volume" {
            mount.volume_options = None;
        }
        if kind != "tmpfs" {
            mount.tmpfs_options = None;
        }
        if let Some(options) = &mut mount.bind_options {
            options.create_mountpoint = false;
        }
    }
    if !version.has(44) && kind == "bind" {
        let options = mount.bind_options.get_or_insert_default();
        if options.read_only_force_recursive {
            return Err(ApiError::invalid(
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
            ));
        }
        // Read-only mounts were not recursive then, and nothing else could be said about it.
        options.read_only_non_recursive = mount.read_only;
    }
    if !version.has(45)
        && mount
            .volume_options
            .as_ref()
            .is_some_and(|options| !options.subpath.is_empty())
    {
        return Err(ApiError::invalid(
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ));
    }
    if !version.has(48) && kind == "image" {
        return Err(ApiError::invalid("Mount type \"Image\" needs API v1.48 or newer"));
    }
    Ok(())
}

fn one_endpoint(networking: &NetworkingConfig) -> Result<()> {
    if networking.endpoints_config.len() <= 1 {
        return Ok(());
    }
    let names: Vec<&str> = networking.endpoints_config.keys().map(String::as_str).collect();
    Err(ApiError::invalid(format!(
        "Container cannot be created with multiple network endpoints: {}",
        names.join(", ")
    )))
}

/// The container-wide address of old belongs to the endpoint of the container's network.
fn move_mac_address(
    mac_address: &mut String,
    host_config: &HostConfig,
    networking: &mut NetworkingConfig,
    version: ApiVersion,
) -> Result<Option<String>> {
    let address = std::mem::take(mac_address);
    if address.is_empty() || version.has(52) {
        return Ok(None);
    }
    let mode = host_config.network_mode.as_str();
    if matches!(mode, "host" | "none") || mode.starts_with("container:") {
        if version.has(44) {
            return Err(ApiError::invalid(
                "conflicting options: mac-address and the network mode",
            ));
        }
        return Ok(None);
    }
    let endpoints = &mut networking.endpoints_config;
    let key = match endpoints.keys().next().cloned() {
        Some(only) if !version.has(44) => only,
        Some(_) if endpoints.contains_key(mode) => mode.to_owned(),
        None => mode.to_owned(),
        Some(_) => {
            return Err(ApiError::invalid(
                "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
            ));
        }
    };
    let settings: &mut EndpointSettings = endpoints.entry(key).or_default().get_or_insert_default();
    if version.has(44) && !settings.mac_address.is_empty() && settings.mac_address != address {
        return Err(ApiError::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or \
             should be left empty",
        ));
    }
    settings.mac_address = address;
    Ok(version.has(44).then(|| {
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
            .to_owned()
    }))
}

/// A port with an empty list of bindings is published on any free port.
fn empty_bindings(host_config: &mut HostConfig, version: ApiVersion) -> Option<String> {
    let ports = &mut host_config.port_bindings;
    let mut filled: Vec<String> = Vec::new();
    if ports.values().any(|bindings| bindings.is_empty()) {
        let entries = ports.entries().into_iter();
        filled.extend(
            entries
                .filter(|(_, bindings)| bindings.is_empty())
                .map(|(port, _)| port),
        );
    }
    for port in &filled {
        ports.insert(port, List::from([PortBinding::default()]));
    }
    (version.has(52) && !filled.is_empty()).then(|| {
        format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings will be discarded in a \
             future version.",
            filled.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{BindOptions, VolumeOptions};

    const OLD: ApiVersion = ApiVersion::new(1, 43);
    const NEW: ApiVersion = ApiVersion::new(1, 53);

    fn bind() -> Mount {
        Mount {
            kind: "bind".to_owned(),
            ..Mount::default()
        }
    }

    #[test]
    fn old_read_only_binds_are_not_recursive() {
        for read_only in [true, false] {
            let mut mount = Mount { read_only, ..bind() };
            adapt_mount(&mut mount, OLD).unwrap();
            assert_eq!(mount.bind_options.unwrap().read_only_non_recursive, read_only);
        }
        let mut mount = bind();
        adapt_mount(&mut mount, NEW).unwrap();
        assert_eq!(mount.bind_options, None);
    }

    #[test]
    fn misplaced_options_are_refused_since_1_42() {
        let mut mount = Mount {
            volume_options: Some(VolumeOptions::default()),
            ..bind()
        };
        assert_eq!(
            adapt_mount(&mut mount, NEW).unwrap_err().message,
            "VolumeOptions must not be specified on mount type \"bind\""
        );
        adapt_mount(&mut mount, ApiVersion::new(1, 41)).unwrap();
        assert_eq!(mount.volume_options, None);
        let forced = BindOptions {
            read_only_force_recursive: true,
            ..BindOptions::default()
        };
        let mut mount = Mount {
            bind_options: Some(forced),
            ..bind()
        };
        assert!(adapt_mount(&mut mount, OLD).is_err());
    }

    #[test]
    fn the_default_network_has_one_name() {
        let mut host_config = HostConfig::default();
        let mut networking = NetworkingConfig::default();
        networking.endpoints_config.insert("default".to_owned(), None);
        default_network(&mut host_config, &mut networking);
        assert_eq!(host_config.network_mode, "bridge");
        assert!(networking.endpoints_config.contains_key("bridge"));
    }

    #[test]
    fn the_address_of_old_moves_to_the_endpoint() {
        let host_config = HostConfig {
            network_mode: "bridge".to_owned(),
            ..HostConfig::default()
        };
        let mut networking = NetworkingConfig::default();
        let mut address = "02:00:00:00:00:01".to_owned();
        let warning = move_mac_address(
            &mut address,
            &host_config,
            &mut networking,
            ApiVersion::new(1, 44),
        )
        .unwrap();
        assert!(warning.is_some() && address.is_empty());
        let settings = networking
            .endpoints_config
            .get("bridge")
            .cloned()
            .flatten()
            .unwrap();
        assert_eq!(settings.mac_address, "02:00:00:00:00:01");
    }

    #[test]
    fn empty_bindings_are_filled() {
        let mut host_config = HostConfig::default();
        host_config.port_bindings.insert("80/tcp", List::empty());
        assert!(empty_bindings(&mut host_config, ApiVersion::new(1, 51)).is_none());
        let filled = host_config.port_bindings.get("80/tcp").unwrap();
        assert_eq!(filled.as_slice(), [PortBinding::default()]);
    }
}
