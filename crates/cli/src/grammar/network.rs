//! `--network`: a name, or `name=…,alias=…,ip=…`; and how the flags beside it shape the endpoints.

use super::csv;
use api_types::{EndpointIpamConfig, EndpointSettings, List, Map, NetworkingConfig};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One network a container joins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    pub target: String,
    pub aliases: Vec<String>,
    pub links: Vec<String>,
    pub ipv4: String,
    pub ipv6: String,
    pub mac: String,
    pub link_local: Vec<String>,
    pub driver_opts: Map<String>,
    pub gw_priority: i64,
}

/// The single-network flags (`--network-alias`, `--ip`, …), which count for the first network.
#[derive(Debug, Default)]
pub struct Defaults<'a> {
    pub aliases: &'a [String],
    pub links: &'a [String],
    pub ipv4: Option<&'a str>,
    pub ipv6: Option<&'a str>,
    pub mac: Option<&'a str>,
    pub link_local: &'a [String],
}

/// Reads one `--network`.
pub fn attachment(text: &str) -> Result<Attachment, String> {
    let long = text.split_once('=').is_some_and(|(key, value)| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        key.ends_with(word) && value.starts_with(word)
    });
    if !long {
        return Ok(Attachment {
            target: text.to_owned(),
            ..Attachment::default()
        });
    }
    let mut out = Attachment::default();
    for field in csv::fields(text)? {
        let lower = field.to_ascii_lowercase();
        let Some((key, value)) = lower.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!("invalid field {field}"));
        };
        let value = value.trim();
        match key.trim() {
            "name" => out.target = value.to_owned(),
            "alias" => out.aliases.push(value.to_owned()),
            "ip" => out.ipv4 = address::<IpAddr>(value)?,
            "ip6" => out.ipv6 = address::<IpAddr>(value)?,
            "mac-address" => out.mac = value.to_owned(),
            "link-local-ip" => out.link_local.push(address::<IpAddr>(value)?),
            "driver-opt" => match value.split_once('=').filter(|(key, _)| !key.is_empty()) {
                Some((key, value)) => {
                    out.driver_opts
                        .insert(key.trim().to_owned(), value.trim().to_owned());
                }
                None => return Err("invalid key value pair format in driver options".into()),
            },
            "gw-priority" => {
                out.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if out.target.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(out)
}

fn address<T: std::str::FromStr + ToString>(text: &str) -> Result<String, String> {
    text.parse::<T>()
        .map(|address| address.to_string())
        .map_err(|_| format!("ParseAddr({text:?}): unable to parse IP"))
}

/// Checks `--ip` while flags are read.
pub fn check_ip(text: &str) -> Result<(), String> {
    text.trim()
        .parse::<IpAddr>()
        .map(|_| ())
        .map_err(|_| format!("failed to parse IP: {text:?}"))
}

/// Anything but the built-in modes.
pub fn is_user_defined(network: &str) -> bool {
    !matches!(network, "default" | "bridge" | "host" | "none") && !network.starts_with("container:")
}

/// The network mode and the endpoints of a new container.
pub fn endpoints(
    mut networks: Vec<Attachment>,
    flags: &Defaults<'_>,
) -> Result<(String, NetworkingConfig), String> {
    let mut config = NetworkingConfig {
        endpoints_config: Map::empty(),
    };
    let named = !networks.is_empty();
    if !named {
        networks.push(Attachment {
            target: "default".into(),
            ..Attachment::default()
        });
    }
    let mode = networks
        .first()
        .map(|network| network.target.clone())
        .unwrap_or_default();
    let count = networks.len();
    let user_defined = networks
        .iter()
        .filter(|network| is_user_defined(&network.target))
        .count();
    for (index, mut network) in networks.into_iter().enumerate() {
        if index == 0 {
            apply(&mut network, flags)?;
        }
        let settings = settings(&network)?;
        if config.endpoints_config.contains_key(&network.target) {
            return Err(format!(
                "network {:?} is specified multiple times",
                network.target
            ));
        }
        if index == 0 && named && count == 1 && settings == EndpointSettings::default() {
            continue;
        }
        config.endpoints_config.insert(network.target, Some(settings));
    }
    if user_defined > 0 && user_defined < count {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes".into(),
        );
    }
    Ok((mode, config))
}

fn apply(network: &mut Attachment, flags: &Defaults<'_>) -> Result<(), String> {
    let conflict = |both: bool, flag: &str, what: &str| {
        if both {
            Err(format!(
                "conflicting options: cannot specify both {flag} and per-network {what}"
            ))
        } else {
            Ok(())
        }
    };
    conflict(
        !network.aliases.is_empty() && !flags.aliases.is_empty(),
        "--network-alias",
        "alias",
    )?;
    conflict(
        !network.ipv4.is_empty() && flags.ipv4.is_some(),
        "--ip",
        "IPv4 address",
    )?;
    conflict(
        !network.ipv6.is_empty() && flags.ipv6.is_some(),
        "--ip6",
        "IPv6 address",
    )?;
    conflict(
        !network.mac.is_empty() && flags.mac.is_some(),
        "--mac-address",
        "MAC address",
    )?;
    conflict(
        !network.link_local.is_empty() && !flags.link_local.is_empty(),
        "--link-local-ip",
        "link-local IP addresses",
    )?;
    if !flags.aliases.is_empty() {
        network.aliases = flags.aliases.to_vec();
    }
    if is_user_defined(&network.target) && !flags.links.is_empty() {
        network.links = flags.links.to_vec();
    }
    if let Some(address) = flags.ipv4.and_then(|text| text.trim().parse::<Ipv4Addr>().ok()) {
        network.ipv4 = address.to_string();
    }
    if let Some(address) = flags.ipv6.and_then(|text| text.trim().parse::<Ipv6Addr>().ok()) {
        network.ipv6 = address.to_string();
    }
    if let Some(mac) = flags.mac {
        network.mac = mac.to_owned();
    }
    if !flags.link_local.is_empty() {
        network.link_local = flags.link_local.to_vec();
    }
    Ok(())
}

fn settings(network: &Attachment) -> Result<EndpointSettings, String> {
    if network.target.trim().is_empty() {
        return Err("no name set for network".into());
    }
    if !is_user_defined(&network.target) {
        if !network.aliases.is_empty() {
            return Err("network-scoped aliases are only supported for user-defined networks".into());
        }
        if !network.links.is_empty() {
            return Err("links are only supported for user-defined networks".into());
        }
    }
    let list = |items: &[String]| {
        if items.is_empty() {
            List::null()
        } else {
            List::from(items.to_vec())
        }
    };
    let ipam = !network.ipv4.is_empty() || !network.ipv6.is_empty() || !network.link_local.is_empty();
    Ok(EndpointSettings {
        aliases: list(&network.aliases),
        links: list(&network.links),
        driver_opts: if network.driver_opts.is_empty() {
            Map::null()
        } else {
            network.driver_opts.clone()
        },
        gw_priority: network.gw_priority,
        ipam_config: ipam.then(|| EndpointIpamConfig {
            ipv4_address: network.ipv4.clone(),
            ipv6_address: network.ipv6.clone(),
            link_local_ips: list(&network.link_local),
        }),
        mac_address: mac(&network.mac)?,
        ..EndpointSettings::default()
    })
}

/// A hardware address in its usual form.
pub fn mac(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    let parts: Vec<&str> = trimmed.split([':', '-']).collect();
    let fine = matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !fine {
        return Err(format!("{text} is not a valid mac address"));
    }
    Ok(parts.join(":").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(texts: &[&str], flags: &Defaults<'_>) -> String {
        let networks: Result<Vec<_>, _> = texts.iter().map(|text| attachment(text)).collect();
        match networks.and_then(|networks| endpoints(networks, flags)) {
            Ok((mode, config)) => {
                let names: Vec<_> = config
                    .endpoints_config
                    .iter()
                    .map(|(name, settings)| {
                        let settings = settings.clone().unwrap_or_default();
                        let ip = settings
                            .ipam_config
                            .map(|ipam| ipam.ipv4_address)
                            .unwrap_or_default();
                        format!(
                            "{name}({}|{ip}|{})",
                            settings.aliases.join(","),
                            settings.mac_address
                        )
                    })
                    .collect();
                format!("{mode}: {}", names.join(" "))
            }
            Err(error) => error,
        }
    }

    #[test]
    fn endpoints_of_a_container() {
        let none = Defaults::default();
        assert_eq!(show(&[], &none), "default: default(||)");
        assert_eq!(show(&["net"], &none), "net: ");
        assert_eq!(show(&["host"], &none), "host: ");
        assert_eq!(show(&["a", "b"], &none), "a: a(||) b(||)");
        assert_eq!(
            show(
                &["name=net,alias=x,ip=10.0.0.2,mac-address=02:42:AC:11:00:02"],
                &none
            ),
            "net: net(x|10.0.0.2|02:42:ac:11:00:02)"
        );
        let aliases = ["web".to_owned()];
        let flags = Defaults {
            aliases: &aliases,
            ipv4: Some("10.1.1.1"),
            ..Defaults::default()
        };
        assert_eq!(show(&["net"], &flags), "net: net(web|10.1.1.1|)");
        assert_eq!(
            show(&["bridge"], &flags),
            "network-scoped aliases are only supported for user-defined networks"
        );
        assert_eq!(
            show(&["a", "host"], &none),
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        );
        assert_eq!(show(&["name=a,bogus=1"], &none), "invalid field key bogus");
    }
}
