//! Classic links (`--link` on the default network): the linked container's address as a name in `/etc/hosts`, and what is
//! known of it as variables. Networks that users make have names instead, and links there are aliases (`network`).

use crate::engine::Inner;
use crate::error::{Error, Result};

use super::{Container, ports};

/// What a link gives.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Name and address for `/etc/hosts`.
    pub(super) hosts: Vec<(String, String)>,
    /// `ALIAS_PORT_80_TCP=tcp://172.17.0.2:80`, …
    pub(super) variables: Vec<String>,
}

/// Reads the container's links; those it links to must run.
pub(super) fn resolve(engine: &Inner, container: &Container) -> Result<Link> {
    let mut all = Link::default();
    // Elsewhere the network has the names.
    if !matches!(
        container.host_config.network_mode.as_str(),
        "" | "default" | "bridge"
    ) {
        return Ok(all);
    }
    for text in &container.host_config.links {
        let (target, alias) = text.split_once(':').unwrap_or((text, text));
        let target = target.trim_start_matches('/');
        let alias = alias.rsplit('/').next().unwrap_or(alias);
        let linked = engine.containers.find(target)?.snapshot();
        if !linked.state.status.is_alive() {
            return Err(Error::conflict(format!(
                "Cannot link to a non running container: /{} AS /{}/{alias}",
                linked.name, container.name
            )));
        }
        let address = linked
            .networks
            .get("bridge")
            .map(|settings| settings.ip_address.clone());
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Err(Error::conflict(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                linked.name
            )));
        };
        let link = describe(&linked, &container.name, alias, &address)?;
        all.hosts.extend(link.hosts);
        all.variables.extend(link.variables);
    }
    Ok(all)
}

fn describe(linked: &Container, own_name: &str, alias: &str, address: &str) -> Result<Link> {
    let name = format!("{alias} {} {}", linked.config.hostname, linked.name);
    let prefix = alias.replace('-', "_").to_uppercase();
    let mut exposed = linked
        .config
        .exposed_ports
        .names()
        .map(|port| ports::parse(&port))
        .collect::<Result<Vec<_>>>()?;
    exposed.sort();
    let mut variables = Vec::new();
    if let Some((port, proto)) = exposed.first() {
        variables.push(format!("{prefix}_PORT={proto}://{address}:{port}"));
    }
    for (port, proto) in &exposed {
        let upper = proto.to_string().to_uppercase();
        let stem = format!("{prefix}_PORT_{port}_{upper}");
        variables.push(format!("{stem}={proto}://{address}:{port}"));
        variables.push(format!("{stem}_ADDR={address}"));
        variables.push(format!("{stem}_PORT={port}"));
        variables.push(format!("{stem}_PROTO={proto}"));
    }
    variables.push(format!("{prefix}_NAME=/{own_name}/{alias}"));
    // What every container has by itself says nothing about this one.
    let own = |setting: &&String| {
        let key = setting.split('=').next().unwrap_or_default();
        setting.contains('=') && !matches!(key, "HOME" | "PATH")
    };
    variables.extend(
        linked
            .config
            .env
            .iter()
            .filter(own)
            .map(|setting| format!("{prefix}_ENV_{setting}")),
    );
    Ok(Link {
        hosts: vec![(name, address.to_owned())],
        variables,
    })
}
