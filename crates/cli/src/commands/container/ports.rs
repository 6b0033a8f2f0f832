//! Ports: the `port` command, and how lists show them.

use crate::client::query::segment;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Value;
use crate::session::{Session, print};
use api_types::port_reach::{PortReach, PortReaches};

pub const COMMAND: Command = Command::new(
    "port",
    "List port mappings or a specific mapping for the container",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    Arity::Between(1, 2),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[Flag::bool(
    "explain",
    "Say who reaches each port, and which rules let them",
)]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    if matches.bool("explain") {
        return explain(session, name, matches.args.get(1).map(String::as_str)).await;
    }
    let path = format!("/containers/{}/json", segment(name));
    let inspect = session.client.get(&path).await?.document().await?;
    let ports = inspect.at(&["NetworkSettings", "Ports"]);
    let binding = |binding: &Value| join(binding.at(&["HostIp"]).text(), binding.at(&["HostPort"]).text());
    if let Some(wanted) = matches.args.get(1) {
        let key = if wanted.contains('/') {
            wanted.clone()
        } else {
            format!("{wanted}/tcp")
        };
        let found = ports
            .members()
            .iter()
            .find(|(port, _)| *port == key)
            .map(|(_, bindings)| bindings.items());
        let Some(bindings) = found.filter(|bindings| !bindings.is_empty()) else {
            return Err(Failure::text(format!(
                "no public port '{wanted}' published for {name}"
            )));
        };
        print(
            &bindings
                .iter()
                .map(|item| binding(item) + "\n")
                .collect::<String>(),
        )?;
        return Ok(0);
    }
    let mut lines: Vec<(u16, String, String)> = Vec::new();
    for (port, bindings) in ports.members() {
        let number = port
            .split('/')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        lines.extend(
            bindings
                .items()
                .iter()
                .map(|item| (number, port.clone(), binding(item))),
        );
    }
    lines.sort();
    print(
        &lines
            .iter()
            .map(|(_, port, address)| format!("{port} -> {address}\n"))
            .collect::<String>(),
    )?;
    Ok(0)
}

/// Who reaches the container's ports (or the one that is `wanted`).
async fn explain(session: &Session, name: &str, wanted: Option<&str>) -> Outcome {
    let path = format!("/containers/{}/ports", segment(name));
    let reaches: PortReaches = session.client.get(&path).await?.model().await?;
    let mut shown = reaches.ports;
    if let Some(wanted) = wanted {
        shown.retain(|reach| is_in(wanted, &reach.port));
        if shown.is_empty() {
            return Err(Failure::text(format!(
                "no public port '{wanted}' published for {name}"
            )));
        }
    }
    print(&shown.iter().map(paragraph).collect::<Vec<_>>().join("\n"))?;
    Ok(0)
}

/// Whether a port as given on the command line is the one, or in the range, that is shown.
fn is_in(wanted: &str, shown: &str) -> bool {
    let (number, proto) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (range, of) = shown.split_once('/').unwrap_or((shown, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let parse = |text: &str| text.parse::<u16>().ok();
    match (parse(number), parse(first), parse(last)) {
        (Some(number), Some(first), Some(last)) => proto == of && (first..=last).contains(&number),
        _ => false,
    }
}

fn paragraph(reach: &PortReach) -> String {
    let mut out = format!(
        "{} -> {}, leads to {} in network {}\n",
        reach.port, reach.published, reach.target, reach.network
    );
    let groups = [
        ("reached by", &reach.from),
        ("answers on", &reach.addresses),
        ("rule", &reach.rules),
        ("note", &reach.notes),
    ];
    for (title, lines) in groups {
        out.extend(lines.iter().map(|line| format!("  {title:<11}{line}\n")));
    }
    out
}

fn join(host: &str, port: &str) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The PORTS column: runs of equal mappings in one piece, the rest one by one.
pub fn summary(ports: &Value) -> String {
    struct Port<'a> {
        private: i64,
        ip: &'a str,
        public: i64,
        kind: &'a str,
    }
    let mut all: Vec<Port<'_>> = ports
        .items()
        .iter()
        .map(|port| Port {
            private: port.at(&["PrivatePort"]).int(),
            ip: port.at(&["IP"]).text(),
            public: port.at(&["PublicPort"]).int(),
            kind: port.at(&["Type"]).text(),
        })
        .collect();
    all.sort_by_key(|port| (port.private, port.ip, port.public, port.kind));
    let group = |ip: &str, kind: &str, first: i64, last: i64| {
        let range = if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        if ip.is_empty() {
            format!("{range}/{kind}")
        } else {
            format!("{}->{range}/{kind}", join(ip, &range))
        }
    };
    let mut groups: Vec<((&str, &str), i64, i64)> = Vec::new();
    let (mut out, mut moved) = (Vec::new(), Vec::new());
    for port in &all {
        if !port.ip.is_empty() && port.public != port.private {
            moved.push(format!(
                "{}->{}/{}",
                join(port.ip, &port.public.to_string()),
                port.private,
                port.kind
            ));
            continue;
        }
        let key = (port.ip, port.kind);
        match groups.iter_mut().find(|(known, _, _)| *known == key) {
            None => groups.push((key, port.private, port.private)),
            Some((_, _, last)) if port.private == *last + 1 => *last = port.private,
            Some((_, first, last)) => {
                out.push(group(port.ip, port.kind, *first, *last));
                (*first, *last) = (port.private, port.private);
            }
        }
    }
    out.extend(
        groups
            .iter()
            .map(|((ip, kind), first, last)| group(ip, kind, *first, *last)),
    );
    out.extend(moved);
    out.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_one_column() {
        let show = |text: &str| summary(&Value::parse(text.as_bytes()).unwrap());
        assert_eq!(
            show(
                r#"[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}]"#
            ),
            "443/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            show(
                r#"[{"IP":"0.0.0.0","PrivatePort":81,"PublicPort":81,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":80,"Type":"tcp"},{"PrivatePort":9,"Type":"udp"},{"PrivatePort":11,"Type":"udp"}]"#
            ),
            "9/udp, 11/udp, 0.0.0.0:80-81->80-81/tcp"
        );
        assert_eq!(show("[]"), "");
    }
}
