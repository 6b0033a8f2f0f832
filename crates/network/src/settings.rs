//! The bridge driver's options (`com.docker.network.*`), read once and checked: what is not understood is kept and
//! shown, as other clients expect.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::error::Error;

/// Longest interface name the kernel takes.
const LONGEST_NAME: usize = 15;
pub(crate) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(crate) const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
pub(crate) const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(crate) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(crate) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
pub(crate) const MTU: &str = "com.docker.network.driver.mtu";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const SOURCE_IPV4: &str = "com.docker.network.host_ipv4";
const SOURCE_IPV6: &str = "com.docker.network.host_ipv6";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";

/// What the host is to a network's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayMode {
    /// Their way out, with its own address; in only through published ports.
    Nat,
    /// The same, and whoever routes to the containers' own addresses reaches every port of them.
    NatUnprotected,
    /// A router that translates nothing: whoever routes to the containers' own addresses reaches what they publish, and
    /// what they send leaves with their own address.
    Routed,
    /// Nothing: it has no address among them. For internal networks.
    Isolated,
}

/// A bridge network's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) bridge: String,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) host_binding: Option<IpAddr>,
    pub(crate) mtu: u32,
    pub(crate) interface_prefix: String,
    /// The bridge itself gets no IPv4 address.
    pub(crate) inhibit_ipv4: bool,
    pub(crate) gateway_modes: [GatewayMode; 2],
    /// The host's address that traffic to others leaves with, instead of that of the interface it leaves by.
    pub(crate) sources: [Option<IpAddr>; 2],
    /// Interfaces of the host from which published ports are reached at the containers' own addresses.
    pub(crate) trusted: Vec<String>,
    /// The network called `bridge`: no names are resolved in it.
    pub(crate) is_default: bool,
}

impl Settings {
    /// Reads options; `fallback_name` is the bridge's when they name none.
    pub(crate) fn parse(options: &BTreeMap<String, String>, fallback_name: &str) -> Result<Settings, Error> {
        let invalid =
            |key: &str, value: &str| Error::Invalid(format!("invalid value {value:?} for option {key}"));
        let flag = |key: &str, default: bool| match options.get(key).map(String::as_str) {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(invalid(key, other)),
        };
        let name = |key: &str, default: &str| match options.get(key).filter(|v| !v.is_empty()) {
            None => Ok(default.to_owned()),
            Some(name) if is_interface_name(name) => Ok(name.clone()),
            Some(name) => Err(invalid(key, name)),
        };
        let mtu = match options.get(MTU).filter(|v| !v.is_empty()) {
            None => 1500,
            // 68 is the least IPv4 allows (RFC 791); 65535 the most the kernel's links do.
            Some(text) => match text.parse() {
                Ok(0) => 1500,
                Ok(mtu @ 68..=65535) => mtu,
                _ => return Err(invalid(MTU, text)),
            },
        };
        let host_binding = match options.get(HOST_BINDING).filter(|v| !v.is_empty()) {
            None => None,
            Some(text) => {
                let address: IpAddr = text.parse().map_err(|_| invalid(HOST_BINDING, text))?;
                Some(address).filter(|a| !a.is_unspecified())
            }
        };
        let mode = |key: &str| match options.get(key).map_or("", String::as_str) {
            "" | "nat" => Ok(GatewayMode::Nat),
            "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
            "isolated" => Ok(GatewayMode::Isolated),
            "routed" => Ok(GatewayMode::Routed),
            other => Err(invalid(key, other)),
        };
        let source = |key: &str, ipv4: bool| match options.get(key).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => match text.parse::<IpAddr>() {
                Ok(address) if address.is_ipv4() == ipv4 && !address.is_unspecified() => Ok(Some(address)),
                _ => Err(invalid(key, text)),
            },
        };
        let list = options.get(TRUSTED).map_or("", String::as_str);
        let mut trusted: Vec<String> = Vec::new();
        for name in list.split(':').filter(|name| !name.is_empty()) {
            if !may_be_interface(name) {
                return Err(invalid(TRUSTED, list));
            }
            // Named twice it is still one element of the firewall.
            if !trusted.iter().any(|known| known == name) {
                trusted.push(name.to_owned());
            }
        }
        Ok(Settings {
            trusted,
            sources: [source(SOURCE_IPV4, true)?, source(SOURCE_IPV6, false)?],
            gateway_modes: [mode(GATEWAY_MODE_IPV4)?, mode(GATEWAY_MODE_IPV6)?],
            bridge: name(BRIDGE_NAME, fallback_name)?,
            icc: flag(ENABLE_ICC, true)?,
            masquerade: flag(ENABLE_MASQUERADE, true)?,
            host_binding,
            mtu,
            interface_prefix: name(INTERFACE_PREFIX, "eth")?,
            inhibit_ipv4: flag(INHIBIT_IPV4, false)?,
            is_default: flag(DEFAULT_BRIDGE, false)?,
        })
    }
}

impl Settings {
    /// What traffic of one family leaves with, where that is chosen.
    pub(crate) fn source(&self, ipv4: bool) -> Option<IpAddr> {
        let [v4, v6] = self.sources;
        if ipv4 { v4 } else { v6 }
    }

    /// The mode of one family.
    pub(crate) fn gateway_mode(&self, ipv4: bool) -> GatewayMode {
        let [v4, v6] = self.gateway_modes;
        if ipv4 { v4 } else { v6 }
    }
}

/// Whether the kernel takes it as an interface's name and no path or pattern hides in it.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether a link of the host may have the name: the kernel's own rule, since others choose it.
fn may_be_interface(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| matches!(c, '/' | ':' | '\0') || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let settings = Settings::parse(&options(&[(ENABLE_ICC, "false"), (MTU, "9000")]), "br-1").unwrap();
        assert!(!settings.icc && settings.masquerade);
        assert_eq!((settings.mtu, settings.bridge.as_str()), (9000, "br-1"));
        assert!(settings.trusted.is_empty());
        let trusting = Settings::parse(&options(&[(TRUSTED, ":vxlan.1:eth3::vxlan.1")]), "br-1").unwrap();
        assert_eq!(trusting.trusted, ["vxlan.1", "eth3"]);
        for (key, value) in [
            (MTU, "12"),
            (BRIDGE_NAME, "../etc"),
            (BRIDGE_NAME, "a-name-that-is-too-long"),
            (ENABLE_ICC, "maybe"),
            (HOST_BINDING, "localhost"),
            (GATEWAY_MODE_IPV4, "direct"),
            (SOURCE_IPV4, "2001:db8::1"),
            (SOURCE_IPV6, "::"),
            (TRUSTED, "eth0:not one"),
            (TRUSTED, "eth0:../../eth1"),
            (TRUSTED, "a-name-that-is-too-long"),
        ] {
            let refused = Settings::parse(&options(&[(key, value)]), "br-1")
                .unwrap_err()
                .to_string();
            assert!(refused.contains(key) && refused.contains(value), "{refused}");
        }
    }
}
