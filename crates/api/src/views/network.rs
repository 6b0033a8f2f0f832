//! Networks.

use std::collections::BTreeMap;

use api_types::{
    ConfigReference, EndpointResource, Ipam, IpamConfig, IpamStatus, Map, NetworkInspect, NetworkStatus,
    NetworkSummary, SubnetStatus,
};
use engine::network::{EndpointInfo, IpamPool, Network, SubnetStatus as Counts};

use super::null_when_empty;

/// A row of `GET /networks`.
pub fn summary(network: &Network) -> NetworkSummary {
    NetworkSummary {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: network.created.clone(),
        scope: network.scope.clone(),
        driver: network.driver.clone(),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: Ipam {
            driver: network.ipam.driver.clone(),
            options: Map::from(network.ipam.options.clone()),
            config: null_when_empty(network.ipam.config.iter().map(pool).collect()),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: network.ingress,
        config_from: ConfigReference {
            network: network.config_from.clone(),
        },
        config_only: network.config_only,
        options: Map::from(network.options.clone()),
        labels: Map::from(network.labels.clone()),
    }
}

/// `GET /networks/{id}`.
pub fn inspect(network: &Network, counts: &[Counts]) -> NetworkInspect {
    let containers: BTreeMap<String, EndpointResource> = network
        .endpoints
        .iter()
        .map(|(id, endpoint)| (id.to_string(), resource(endpoint)))
        .collect();
    let subnets: Map<SubnetStatus> = counts
        .iter()
        .map(|count| {
            let status = SubnetStatus {
                ips_in_use: count.in_use,
                dynamic_ips_available: count.available,
            };
            (count.subnet.to_string(), status)
        })
        .collect();
    let status = NetworkStatus {
        ipam: IpamStatus { subnets },
    };
    NetworkInspect::from_summary(summary(network), containers, Some(status))
}

fn pool(pool: &IpamPool) -> IpamConfig {
    fn text<T: ToString>(value: Option<&T>) -> String {
        value.map(ToString::to_string).unwrap_or_default()
    }
    IpamConfig {
        subnet: text(pool.subnet.as_ref()),
        ip_range: text(pool.ip_range.as_ref()),
        gateway: text(pool.gateway.as_ref()),
        auxiliary_addresses: pool
            .aux
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    }
}

fn resource(endpoint: &EndpointInfo) -> EndpointResource {
    EndpointResource {
        name: endpoint.name.clone(),
        endpoint_id: endpoint.endpoint_id.to_string(),
        mac_address: endpoint.mac.to_string(),
        ipv4_address: endpoint
            .ipv4
            .map(|address| address.to_string())
            .unwrap_or_default(),
        ipv6_address: endpoint
            .ipv6
            .map(|address| address.to_string())
            .unwrap_or_default(),
    }
}
