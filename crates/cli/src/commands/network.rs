//! Networks.

mod dns_log;

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::commands::container::list::pairs;
use crate::commands::inspect;
use crate::commands::pruning::Mode;
use crate::commands::system::check;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{short_id, time};
use crate::grammar::devices::list;
use crate::grammar::env::{check_label, pairs as to_map};
use crate::grammar::filter::{self, Filters};
use crate::grammar::{hosts, network};
use crate::session::{Session, print, say};
use api_types::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Map, NetworkConnectRequest,
    NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest, NetworksPruneReport,
};

pub const COMMANDS: &[&Command] = &[
    &CONNECT,
    &CREATE,
    &DISCONNECT,
    &dns_log::COMMAND,
    &inspect::NETWORK,
    &LS,
    &PRUNE,
    &RELOAD,
    &RM,
];

const LS: Command = Command::new(
    "ls",
    "List networks",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(ls(session, matches)),
)
.aliases(&["list"])
.flags(&[&[
    Flag::list("filter", "Show only what matches")
        .short('f')
        .value("filter")
        .check(filter::check),
    FORMAT,
    Flag::bool("no-trunc", "Do not cut values short"),
    Flag::bool("quiet", "Show IDs only").short('q'),
]]);

const CREATE: Command = Command::new(
    "create",
    "Create a network",
    "[OPTIONS] NETWORK",
    Arity::Exactly(1),
    |session, matches| Box::pin(create(session, matches)),
)
.flags(&[&[
    Flag::bool("attachable", "Let containers join by hand"),
    Flag::list("aux-address", "Addresses the driver takes for itself").value("map"),
    Flag::text("config-from", "Take the configuration of another network"),
    Flag::bool("config-only", "Make a network that is only a configuration"),
    Flag::text("driver", "Driver of the network")
        .short('d')
        .default("bridge"),
    Flag::list("gateway", "Gateway of the subnet"),
    Flag::bool("ingress", "Make the routing mesh of a cluster"),
    Flag::bool("internal", "Cut the network off from the outside"),
    Flag::list("ip-range", "Give containers addresses of this part only"),
    Flag::text("ipam-driver", "Driver of the address plan").default("default"),
    Flag::list("ipam-opt", "Options of the address plan").value("map"),
    Flag::bool("ipv4", "IPv4 addresses").default("true"),
    Flag::bool("ipv6", "IPv6 addresses"),
    Flag::list("label", "Attach a label").check(check_label),
    Flag::list("opt", "Options of the driver").short('o').value("map"),
    Flag::text("scope", "Reach of the network"),
    Flag::list("subnet", "Subnet in CIDR notation"),
]]);

const CONNECT: Command = Command::new(
    "connect",
    "Connect a container to a network",
    "[OPTIONS] NETWORK CONTAINER",
    Arity::Exactly(2),
    |session, matches| Box::pin(connect(session, matches)),
)
.flags(&[&[
    Flag::list("alias", "A further name on the network"),
    Flag::list("driver-opt", "Options of the driver"),
    Flag::int(
        "gw-priority",
        "The network with the highest number gives the default route",
    ),
    Flag::text("ip", "IPv4 address (172.30.100.104)").check(network::check_ip),
    Flag::text("ip6", "IPv6 address (2001:db8::33)").check(network::check_ip),
    Flag::list("link", "Link to another container").check(hosts::check_link),
    Flag::list("link-local-ip", "Link-local addresses"),
]]);

const DISCONNECT: Command = Command::new(
    "disconnect",
    "Disconnect a container from a network",
    "[OPTIONS] NETWORK CONTAINER",
    Arity::Exactly(2),
    |session, matches| Box::pin(disconnect(session, matches)),
)
.flags(&[&[Flag::bool("force", "Disconnect even when the container is gone").short('f')]]);

const RM: Command = Command::new(
    "rm",
    "Remove one or more networks",
    "NETWORK [NETWORK...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(rm(session, matches)),
)
.aliases(&["remove"])
.flags(&[&[Flag::bool("force", "Do not mind networks that do not exist").short('f')]]);

const RELOAD: Command = Command::new(
    "reload",
    "Make rules, bridges, links and names on the host as they are recorded",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(reload(session, matches)),
)
.flags(&[&[Flag::text("format", "Layout: 'table' (default) or 'json'")]]);

const PRUNE: Command = Command::new(
    "prune",
    "Remove all unused networks",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(prune_command(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be removed, and remove nothing"),
    Flag::list("filter", "Remove only what matches (until=24h)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
]]);

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    kind: "*network.networkContext",
};

async fn ls(session: &Session, matches: &Matches) -> Outcome {
    let path = Query::new("/networks")
        .text("filters", &Filters::read(matches.list("filter")).document())
        .build();
    let networks = session.client.get(&path).await?.document().await?;
    let mut sorted: Vec<_> = networks.items().iter().collect();
    sorted.sort_by(|left, right| left.at(&["Name"]).text().cmp(right.at(&["Name"]).text()));
    let rows = sorted.into_iter().map(|item| {
        let text = |key: &str| item.at(&[key]).text().to_owned();
        let id = text("Id");
        let flag = |key: &str| item.at(&[key]).flag().to_string();
        Row::new()
            .cell(
                "ID",
                if matches.bool("no-trunc") {
                    id.clone()
                } else {
                    short_id(&id).to_owned()
                },
            )
            .cell("Name", text("Name"))
            .cell("Driver", text("Driver"))
            .cell("Scope", text("Scope"))
            .cell("IPv4", flag("EnableIPv4"))
            .cell("IPv6", flag("EnableIPv6"))
            .cell("Internal", flag("Internal"))
            .cell("Labels", pairs(item.at(&["Labels"])))
            .cell("CreatedAt", created_at(&text("Created")))
            .method("Label", item.at(&["Labels"]).clone())
    });
    let configured = match matches.text("format") {
        Some(text) => Some(text.to_owned()),
        None if matches.bool("quiet") => None,
        None => session.config().text("networksFormat"),
    };
    let format = Format::new(configured.as_deref(), matches.bool("quiet"));
    print(&render(&LISTING, &format, rows.collect())?)?;
    Ok(0)
}

async fn reload(session: &Session, matches: &Matches) -> Outcome {
    let json = check::wants_json(matches, "network reload")?;
    let reply = session.client.post("/networks/reload").await?;
    check::show(&reply.model().await?, json)
}

/// Go's `Time.String()`: the fraction without trailing zeros, offset and zone.
fn created_at(text: &str) -> String {
    match time::parse(text) {
        None => "0001-01-01 00:00:00 +0000 UTC".into(),
        Some(stamp) => {
            let whole = time::created_at(stamp.as_second());
            let nanos = format!("{:09}", stamp.subsec_nanosecond());
            let fraction = nanos.trim_end_matches('0');
            match (whole.get(..19), whole.get(19..)) {
                (Some(head), Some(tail)) if !fraction.is_empty() => format!("{head}.{fraction}{tail}"),
                _ => whole,
            }
        }
    }
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let from = matches.text("config-from").unwrap_or_default();
    let request = NetworkCreateRequest {
        name: matches.arg(0).to_owned(),
        driver: matches.text_or_default("driver").to_owned(),
        scope: matches.text("scope").unwrap_or_default().to_owned(),
        enable_ipv4: matches.changed("ipv4").then(|| matches.bool("ipv4")),
        enable_ipv6: matches.changed("ipv6").then(|| matches.bool("ipv6")),
        ipam: Some(Ipam {
            driver: matches.text_or_default("ipam-driver").to_owned(),
            options: to_map(matches.list("ipam-opt")),
            config: plan(matches).map_err(Failure::text)?.into(),
        }),
        internal: matches.bool("internal"),
        attachable: matches.bool("attachable"),
        ingress: matches.bool("ingress"),
        config_only: matches.bool("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigReference {
            network: from.to_owned(),
        }),
        options: to_map(matches.list("opt")),
        labels: to_map(matches.list("label")),
    };
    let answer: NetworkCreateResponse = session
        .client
        .post_json("/networks/create", &request)
        .await?
        .model()
        .await?;
    if !answer.warning.is_empty() {
        eprintln!("{}", answer.warning);
    }
    say(&answer.id)?;
    Ok(0)
}

/// An address and how many of its bits name the network.
fn cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

fn contains(subnet: &str, address: &str) -> bool {
    let (Some((base, bits)), Ok(address)) = (
        cidr(subnet),
        address
            .split('/')
            .next()
            .unwrap_or(address)
            .parse::<std::net::IpAddr>(),
    ) else {
        return false;
    };
    let number = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        std::net::IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((left, v4), (right, other)) = (number(base), number(address));
    let mask = if bits == 0 {
        0
    } else {
        u128::MAX << (128 - u32::from(bits))
    };
    v4 == other && left & mask == right & mask
}

/// Subnets with the ranges, gateways and auxiliary addresses that lie in them.
fn plan(matches: &Matches) -> Result<Vec<IpamConfig>, String> {
    let subnets = matches.list("subnet");
    if subnets.len() < matches.list("ip-range").len() || subnets.len() < matches.list("gateway").len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut out: Vec<IpamConfig> = Vec::new();
    for subnet in subnets {
        if cidr(subnet).is_none() {
            return Err(format!("invalid CIDR address: {subnet}"));
        }
        for other in &out {
            let base = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
            if contains(subnet, &base(&other.subnet)) || contains(&other.subnet, &base(subnet)) {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
        }
        out.push(IpamConfig {
            subnet: subnet.clone(),
            ..IpamConfig::default()
        });
    }
    for range in matches.list("ip-range") {
        let Some(config) = out.iter_mut().find(|config| contains(&config.subnet, range)) else {
            return Err(format!("no matching subnet for range {range}"));
        };
        if !config.ip_range.is_empty() {
            return Err(format!(
                "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                config.ip_range, config.subnet
            ));
        }
        config.ip_range = range.clone();
    }
    for gateway in matches.list("gateway") {
        let Some(config) = out.iter_mut().find(|config| contains(&config.subnet, gateway)) else {
            return Err(format!("no matching subnet for gateway {gateway}"));
        };
        if !config.gateway.is_empty() {
            return Err(format!(
                "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                config.gateway, config.subnet
            ));
        }
        config.gateway = gateway.clone();
    }
    for pair in matches.list("aux-address") {
        let (name, address) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(config) = out.iter_mut().find(|config| contains(&config.subnet, address)) else {
            return Err(format!("no matching subnet for aux-address {address}"));
        };
        config
            .auxiliary_addresses
            .insert(name.to_owned(), address.to_owned());
    }
    Ok(out)
}

async fn connect(session: &Session, matches: &Matches) -> Outcome {
    let text = |flag: &str| matches.text(flag).unwrap_or_default().to_owned();
    let (ipv4, ipv6, local) = (text("ip"), text("ip6"), matches.list("link-local-ip"));
    let addressed = !ipv4.is_empty() || !ipv6.is_empty() || !local.is_empty();
    let mut driver_opts = Map::null();
    for pair in matches.list("driver-opt") {
        match pair.split_once('=').filter(|(key, _)| !key.is_empty()) {
            Some((key, value)) => driver_opts.insert(key.to_owned(), value.to_owned()),
            None => return Err(Failure::text("invalid key/value pair format in driver options")),
        };
    }
    let request = NetworkConnectRequest {
        container: matches.arg(1).to_owned(),
        endpoint_config: Some(EndpointSettings {
            ipam_config: addressed.then(|| EndpointIpamConfig {
                ipv4_address: ipv4,
                ipv6_address: ipv6,
                link_local_ips: list(local.to_vec()),
            }),
            links: list(matches.list("link").to_vec()),
            aliases: list(matches.list("alias").to_vec()),
            driver_opts,
            gw_priority: matches.int("gw-priority").unwrap_or(0),
            ..EndpointSettings::default()
        }),
    };
    let path = format!("/networks/{}/connect", segment(matches.arg(0)));
    session.client.post_json(&path, &request).await?.done().await?;
    Ok(0)
}

async fn disconnect(session: &Session, matches: &Matches) -> Outcome {
    let request = NetworkDisconnectRequest {
        container: matches.arg(1).to_owned(),
        force: matches.bool("force"),
    };
    let path = format!("/networks/{}/disconnect", segment(matches.arg(0)));
    session.client.post_json(&path, &request).await?.done().await?;
    Ok(0)
}

async fn rm(session: &Session, matches: &Matches) -> Outcome {
    let mut failures = Failures::new();
    for name in &matches.args {
        let path = format!("/networks/{}", segment(name));
        let answer = async { session.client.delete(&path).await?.done().await };
        match answer.await {
            Ok(()) => say(name)?,
            Err(failure) if matches.bool("force") && failure.is_not_found() => {}
            Err(failure) => failures.push(failure),
        }
    }
    // Each failure was about one name; none of them hides another.
    failures.outcome()
}

async fn prune_command(session: &Session, matches: &Matches) -> Outcome {
    let question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?";
    let mode = Mode::of(matches);
    mode.ask(matches, question)?;
    print(&prune(session, mode, &Filters::read(matches.list("filter"))).await?)?;
    Ok(0)
}

/// Removes; answers with the text to show.
pub async fn prune(session: &Session, mode: Mode, filters: &Filters) -> Result<String, Failure> {
    let path = Query::new("/networks/prune")
        .flag("dryrun", mode.dry_run)
        .text("filters", &filters.document())
        .build();
    let report: NetworksPruneReport = session.client.post(&path).await?.model().await?;
    Ok(mode.list("Networks", &report.networks_deleted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        assert!(contains("10.1.0.0/16", "10.1.2.3") && !contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("10.1.0.0/16", "10.1.4.0/24") && contains("fd00::/8", "fd01::1"));
        assert!(!contains("10.0.0.0/8", "fd01::1") && contains("0.0.0.0/0", "1.2.3.4"));
        assert_eq!(
            created_at("2026-11-23T23:35:01.5Z"),
            "2026-11-23 23:35:01.5 +0000 UTC"
        );
    }
}
