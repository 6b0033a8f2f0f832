//! `--publish` and `--expose`: `[[ip:]hostPort[-end]:]containerPort[-end][/proto]`.

use api_types::{Empty, ExposedPorts, PortBinding, PortMap, Protocol};
use std::net::IpAddr;

/// Ports as the API takes them.
#[derive(Debug, Default, PartialEq)]
pub struct Ports {
    pub exposed: ExposedPorts,
    pub bindings: PortMap,
}

/// Reads all `--publish` values.
pub fn publish(specs: &[String]) -> Result<Ports, String> {
    let mut ports = Ports {
        exposed: ExposedPorts::empty(),
        bindings: PortMap::empty(),
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
    let protocol = protocol_of(protocol)?;
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
    ports.exposed.insert_range(protocol, start..=end, Empty {});
    let binding = |host_port: String| PortBinding {
        host_ip: ip.clone(),
        host_port,
    };
    let bindings = &mut ports.bindings;
    match host {
        None => bindings.bind(protocol, start..=end, &binding(String::new())),
        Some((from, to)) if start == end && from != to => {
            bindings.bind(protocol, start..=end, &binding(format!("{from}-{to}")));
        }
        // A port 0 means any; what comes behind it is counted from 1 on.
        Some((0, _)) if start != end => {
            bindings.bind(protocol, start..=start, &binding("0".to_owned()));
            bindings.bind(protocol, start + 1..=end, &binding("1".to_owned()));
        }
        Some((from, _)) => bindings.bind(protocol, start..=end, &binding(from.to_string())),
    }
    Ok(())
}

fn protocol_of(text: &str) -> Result<Protocol, String> {
    let text = text.to_ascii_lowercase();
    Protocol::parse(&text).ok_or_else(|| format!("invalid proto: {text}"))
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
pub fn expose(specs: &[String], exposed: &mut ExposedPorts) -> Result<(), String> {
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
        exposed.insert_range(protocol_of(protocol)?, from..=to, Empty {});
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
                "0-1:80-81",
                r#"{"80/tcp":[{"HostIp":"","HostPort":"0"}],"81/tcp":[{"HostIp":"","HostPort":"1"}]}"#,
            ),
            (
                "99-101:99-101",
                r#"{"100/tcp":[{"HostIp":"","HostPort":"100"}],"101/tcp":[{"HostIp":"","HostPort":"101"}],"99/tcp":[{"HostIp":"","HostPort":"99"}]}"#,
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

    #[test]
    fn a_port_may_be_published_several_times_and_a_range_is_as_cheap_as_a_port() {
        let specs = ["20000-29999:20000-29999", "[::1]:25000:25000", "25000"].map(str::to_owned);
        let ports = publish(&specs).unwrap();
        let several = serde_json::to_string(&ports.bindings.get("25000/tcp")).unwrap();
        assert_eq!(
            several,
            r#"[{"HostIp":"","HostPort":"25000"},{"HostIp":"::1","HostPort":"25000"},{"HostIp":"","HostPort":""}]"#
        );
        assert_eq!((ports.bindings.len(), ports.exposed.len()), (10_000, 10_000));
        assert_eq!(
            (ports.bindings.runs().count(), ports.exposed.runs().count()),
            (3, 1)
        );
    }
}
