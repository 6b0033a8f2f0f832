//! `--publish` and `--expose`: `[[ip:]hostPort[-end]:]containerPort[-end][/proto]`.

use api_types::{Empty, List, Map, PortBinding, PortMap};
use std::net::IpAddr;

/// Ports as the API takes them.
#[derive(Debug, Default, PartialEq)]
pub struct Ports {
    pub exposed: Map<Empty>,
    pub bindings: PortMap,
}

/// Reads all `--publish` values.
pub fn publish(specs: &[String]) -> Result<Ports, String> {
    let mut ports = Ports {
        exposed: Map::empty(),
        bindings: Map::empty(),
    };
    for spec in specs {
        if spec.contains('=') {
            one(&long_form(spec)?, &mut ports)?;
        } else {
            one(spec, &mut ports)?;
        }
    }
    Ok(ports)
}

/// `published=8080,target=80,protocol=tcp`
fn long_form(spec: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for part in spec.split(',') {
        match part.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => {
                return Err(format!(
                    "invalid publish opts format (should be name=value but got '{part}')"
                ));
            }
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn one(spec: &str, ports: &mut Ports) -> Result<(), String> {
    let mut parts: Vec<&str> = spec.split(':').collect();
    let last = parts.pop().unwrap_or_default();
    let host_port = parts.pop().unwrap_or_default();
    let ip = parts.join(":");
    let (container_port, protocol) = split_protocol(last);
    if container_port.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let ip = match ip.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .ok_or_else(|| format!("invalid IP address {ip}: address {ip}:: missing ']' in address"))?
            .to_owned(),
        None => ip,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let (start, end) =
        range(container_port).ok_or_else(|| format!("invalid containerPort: {container_port}"))?;
    let host = match host_port {
        "" => None,
        text => Some(range(text).ok_or_else(|| format!("invalid hostPort: {text}"))?),
    };
    if let Some((from, to)) = host
        && to - from != end - start
        && end != start
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container_port} and {host_port}"
        ));
    }
    for offset in 0..=(end - start) {
        let host_port = match host {
            None => String::new(),
            Some((from, to)) if start == end && from != to => format!("{from}-{to}"),
            Some((from, _)) => (u32::from(from) + u32::from(offset)).to_string(),
        };
        let key = format!("{}/{protocol}", u32::from(start) + u32::from(offset));
        ports.exposed.insert(key.clone(), Empty {});
        ports
            .bindings
            .entry(key)
            .or_insert_with(List::empty)
            .push(PortBinding {
                host_ip: ip.clone(),
                host_port,
            });
    }
    Ok(())
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((port, "")) => (port, "tcp"),
        Some((port, protocol)) => (port, protocol),
        None => (text, "tcp"),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse::<u16>().ok()
        } else {
            None
        }
    };
    match text.split_once('-') {
        Some((from, to)) => {
            let (from, to) = (port(from)?, port(to)?);
            (from <= to).then_some((from, to))
        }
        None => port(text).map(|port| (port, port)),
    }
}

/// Adds all `--expose` values.
pub fn expose(specs: &[String], exposed: &mut Map<Empty>) -> Result<(), String> {
    for spec in specs {
        if spec.contains(':') {
            return Err(format!("invalid port format for --expose: {spec}"));
        }
        let (port, protocol) = split_protocol(spec);
        let (from, to) = range(port).ok_or_else(|| {
            let part = port.split('-').find(|part| part.parse::<u16>().is_err()).unwrap_or(port);
            format!(
                "invalid range format for --expose: {spec}, error: strconv.ParseUint: parsing {part:?}: invalid syntax"
            )
        })?;
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(format!("invalid proto: {protocol}"));
        }
        for port in from..=to {
            exposed.insert(format!("{port}/{protocol}"), Empty {});
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(spec: &str) -> String {
        match publish(&[spec.to_owned()]) {
            Ok(ports) => serde_json::to_string(&ports.bindings).unwrap(),
            Err(error) => error,
        }
    }

    #[test]
    fn publish_forms() {
        for (spec, want) in [
            ("80", r#"{"80/tcp":[{"HostIp":"","HostPort":""}]}"#),
            ("8080:80", r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#),
            (
                "127.0.0.1:8080:80/udp",
                r#"{"80/udp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}"#,
            ),
            (
                "127.0.0.1::80",
                r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}"#,
            ),
            (
                "[::1]:8080:80",
                r#"{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}"#,
            ),
            (
                "::1:8080:80",
                r#"{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}"#,
            ),
            (
                "8000-8010:80",
                r#"{"80/tcp":[{"HostIp":"","HostPort":"8000-8010"}]}"#,
            ),
            (
                "8000-8001:80-81/sctp",
                r#"{"80/sctp":[{"HostIp":"","HostPort":"8000"}],"81/sctp":[{"HostIp":"","HostPort":"8001"}]}"#,
            ),
            (
                "published=1,target=2,protocol=udp",
                r#"{"2/udp":[{"HostIp":"","HostPort":"1"}]}"#,
            ),
            ("abc", "invalid containerPort: abc"),
            ("99999:80", "invalid hostPort: 99999"),
            ("80/foo", "invalid proto: foo"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("80:", "no port specified: 80:<empty>"),
            (
                "8000-8002:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 8000-8002",
            ),
        ] {
            assert_eq!(show(spec), want, "{spec}");
        }
    }
}
