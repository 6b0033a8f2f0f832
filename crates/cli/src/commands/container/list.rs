//! `ps`: lists containers.

use super::ports;
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{duration, ellipsis, printable, short_id, size, time};
use crate::grammar::filter::{self, Filters};
use crate::json::Value;
use crate::session::{Session, print};
use crate::template;

pub const FLAGS: &[Flag] = &[
    Flag::bool("all", "Show stopped containers too").short('a'),
    Flag::list("filter", "Show only what matches")
        .short('f')
        .value("filter")
        .check(filter::check),
    FORMAT,
    Flag::int("last", "Show the last N created containers, whatever their state")
        .short('n')
        .default("-1"),
    Flag::bool("latest", "Show the newest container, whatever its state").short('l'),
    Flag::bool("no-trunc", "Do not cut values short"),
    Flag::bool("quiet", "Show IDs only").short('q'),
    Flag::bool("size", "Show the size on disk").short('s'),
];

pub const PS: Command = Command::new(
    "ps",
    "List containers",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[FLAGS]);

/// The same under `container`.
pub const LS: Command = Command::new(
    "ls",
    "List containers",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.aliases(&["ps", "list"])
.flags(&[FLAGS]);

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Platform", "PLATFORM"),
    ("HealthStatus", "HEALTH STATUS"),
    ("IPAddresses", "IP ADDRESSES"),
];

const KIND: &str = "*formatter.ContainerContext";

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let configured = match matches.text("format") {
        Some(text) => Some(text.to_owned()),
        None if matches.bool("quiet") => None,
        None => session.config().text("psFormat"),
    };
    let format = Format::new(configured.as_deref(), matches.bool("quiet"));
    let last = if matches.bool("latest") {
        1
    } else {
        matches.int("last").unwrap_or(-1)
    };
    let with_size = matches.bool("size") || format.mentions(".Size");
    let path = Query::new("/containers/json")
        .flag("all", matches.bool("all") || last > 0)
        .text("limit", &if last > 0 { last.to_string() } else { String::new() })
        .flag("size", with_size)
        .text("filters", &Filters::read(matches.list("filter")).document())
        .build();
    let containers = session.client.get(&path).await?.document().await?;
    let rows = containers
        .items()
        .iter()
        .map(|container| row(container, matches.bool("no-trunc")))
        .collect();
    print(&table(&format, matches.bool("size"), rows)?)?;
    Ok(0)
}

fn table(format: &Format<'_>, with_size: bool, rows: Vec<Row>) -> Result<String, Failure> {
    let table = if with_size {
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
    } else {
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
    };
    render(
        &Listing {
            columns: COLUMNS,
            table,
            quiet: "{{.ID}}",
            kind: KIND,
        },
        format,
        rows,
    )
}

/// One container as a row.
pub fn row(container: &Value, whole: bool) -> Row {
    let text = |key: &str| printable(container.at(&[key]).text());
    let id = text("Id");
    let created = container.at(&["Created"]).int();
    let command = text("Command");
    let command = if whole { command } else { ellipsis(&command, 20) };
    let names: Vec<String> = container
        .at(&["Names"])
        .items()
        .iter()
        .map(|name| name.text().trim_start_matches('/').to_owned())
        .filter(|name| whole || !name.contains('/'))
        .collect();
    let labels = container.at(&["Labels"]);
    let mounts: Vec<String> = container
        .at(&["Mounts"])
        .items()
        .iter()
        .map(|mount| {
            let name = mount.at(&["Name"]).text();
            let name = if name.is_empty() {
                mount.at(&["Source"]).text()
            } else {
                name
            };
            if whole {
                name.to_owned()
            } else {
                ellipsis(name, 15)
            }
        })
        .collect();
    let local = container
        .at(&["Mounts"])
        .items()
        .iter()
        .filter(|mount| mount.at(&["Driver"]).text() == "local");
    let networks: Vec<&str> = container
        .at(&["NetworkSettings", "Networks"])
        .members()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let written = container.at(&["SizeRw"]).float();
    let root = container.at(&["SizeRootFs"]).float();
    let shown = match root > 0.0 {
        true => format!("{} (virtual {})", size::decimal3(written), size::decimal3(root)),
        false => size::decimal3(written),
    };
    let platform = container.at(&["ImageManifestDescriptor", "platform"]);
    let platform = match platform {
        Value::Object(members) => {
            let parts = ["os", "architecture", "variant"].map(|key| platform.at(&[key]).text());
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            shown_as(members.clone(), parts.join("/"))
        }
        _ => Value::Null,
    };
    Row::new()
        .cell(
            "ID",
            if whole {
                id.clone()
            } else {
                short_id(&id).to_owned()
            },
        )
        .cell("Image", image(container, whole))
        .cell(
            "Command",
            format!(
                "\"{}\"",
                command
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n")
                    .replace('\t', "\\t")
            ),
        )
        .cell("CreatedAt", time::created_at(created))
        .cell("RunningFor", duration::ago(created, time::now()))
        .cell("Ports", ports::summary(container.at(&["Ports"])))
        .cell("State", text("State"))
        .cell("Status", text("Status"))
        .cell("Size", shown)
        .cell("Names", names.join(","))
        .cell("Labels", pairs(labels))
        .cell("Mounts", mounts.join(","))
        .cell("Networks", networks.join(","))
        .cell("LocalVolumes", local.count().to_string())
        .cell("Platform", platform)
        .cell("IPAddresses", addresses(container))
        .cell("HealthStatus", container.at(&["Health", "Status"]).text())
        .method("Label", labels.clone())
}

/// An object that is written as `text` outside JSON.
fn shown_as(mut members: Vec<(String, Value)>, text: String) -> Value {
    members.push((template::WRITTEN.to_owned(), text.into()));
    Value::Object(members)
}

/// A container's addresses, each with its network.
fn addresses(container: &Value) -> Value {
    let mut found = Vec::new();
    for (network, endpoint) in container.at(&["NetworkSettings", "Networks"]).members() {
        for key in ["IPAddress", "GlobalIPv6Address"] {
            let address = endpoint.at(&[key]).text();
            if !address.is_empty() {
                found.push((network.clone(), address.to_owned()));
            }
        }
    }
    found.sort();
    let item = |(network, address): (String, String)| {
        let text = format!("{network}/{address}");
        let members = vec![
            ("Network".to_owned(), network.into()),
            ("IP".to_owned(), address.into()),
        ];
        shown_as(members, text)
    };
    Value::Array(found.into_iter().map(item).collect())
}

/// `key=value` of a map, sorted and joined by commas.
pub fn pairs(map: &Value) -> String {
    let mut pairs: Vec<String> = map
        .members()
        .iter()
        .map(|(key, value)| printable(&format!("{key}={}", value.text())))
        .collect();
    pairs.sort();
    pairs.join(",")
}

fn image(container: &Value, whole: bool) -> String {
    let name = printable(container.at(&["Image"]).text());
    if name.is_empty() {
        return "<no image>".into();
    }
    if whole {
        return name;
    }
    let short = short_id(container.at(&["ImageID"]).text());
    if short == short_id(&name) && name.starts_with("sha256:") || name == container.at(&["ImageID"]).text() {
        return short.to_owned();
    }
    match spec::Reference::parse_normalized(&name) {
        Ok(reference) if reference.digest().is_some() => reference.familiar_name(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Value {
        Value::parse(
            br#"{"Id":"0123456789abcdef0123","Names":["/web","/db/link"],"Image":"nginx","ImageID":"sha256:00",
            "Command":"nginx -g 'daemon off;' and more","Created":1,"Ports":[{"PrivatePort":80,"Type":"tcp"}],
            "Labels":{"b":"2","a":"1"},"State":"running","Status":"Up 3 seconds (healthy)","SizeRw":2,"SizeRootFs":1000,
            "NetworkSettings":{"Networks":{"bridge":{}}},"Mounts":[{"Type":"volume","Name":"a-very-long-volume-name","Driver":"local"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_usual_table() {
        let text = table(&Format::new(None, false), false, vec![row(&container(), false)]).unwrap();
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some(
                "CONTAINER ID   IMAGE     COMMAND                  CREATED        STATUS                   PORTS     NAMES"
            )
        );
        let row = lines.next().unwrap_or_default();
        assert!(
            row.starts_with("0123456789ab   nginx     \"nginx -g 'daemon of…\"   "),
            "{row}"
        );
        assert!(row.ends_with("Up 3 seconds (healthy)   80/tcp    web"), "{row}");
    }

    #[test]
    fn templates_over_rows() {
        let show = |text: &str| {
            table(
                &Format::new(Some(text), false),
                false,
                vec![row(&container(), false)],
            )
            .unwrap()
        };
        assert_eq!(
            show("{{.Label \"b\"}} {{.Labels}} {{.Mounts}} {{.LocalVolumes}} {{.Networks}}"),
            "2 a=1,b=2 a-very-long-vo… 1 bridge\n"
        );
        assert_eq!(show("{{.Size}}"), "2B (virtual 1kB)\n");
    }
}
