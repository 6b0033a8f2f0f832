//! `ps`: lists containers.

use super::ports;
use crate::answer::{self, Part, Text};
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, Table, Wanted};
use crate::format::{duration, ellipsis, printable, short_id, size, time};
use crate::grammar::filter::{self, Filters};
use crate::json::Value;
use crate::session::{Session, print};
use crate::template;
use serde::Deserialize;

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

/// One container of the daemon's answer.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Listed<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    names: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    image: Text<'a>,
    #[serde(borrow, rename = "ImageID")]
    image_id: Text<'a>,
    #[serde(borrow)]
    image_manifest_descriptor: Part<'a>,
    #[serde(borrow)]
    command: Text<'a>,
    /// Unix seconds.
    created: i64,
    #[serde(borrow)]
    ports: Part<'a>,
    size_rw: f64,
    size_root_fs: f64,
    #[serde(borrow)]
    labels: Part<'a>,
    #[serde(borrow)]
    state: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    health: Part<'a>,
    #[serde(borrow)]
    network_settings: Part<'a>,
    #[serde(borrow)]
    mounts: Part<'a>,
}

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
    let bytes = session.client.get(&path).await?.bytes().await?;
    let containers: Vec<Listed<'_>> = answer::rows(&bytes)?;
    print(&table(
        &format,
        matches.bool("size"),
        &containers,
        matches.bool("no-trunc"),
    )?)?;
    Ok(0)
}

fn table(
    format: &Format<'_>,
    with_size: bool,
    containers: &[Listed<'_>],
    whole: bool,
) -> Result<String, Failure> {
    let listing = Listing {
        columns: COLUMNS,
        table: if with_size {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
        } else {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
        },
        quiet: "{{.ID}}",
        kind: KIND,
    };
    let table = Table::new(&listing, format)?;
    let (wanted, now) = (table.wanted(), time::now());
    table.render(
        containers
            .iter()
            .map(|container| row(container, &wanted, whole, now)),
    )
}

/// The row of a container in an answer that was read as a whole.
pub fn row_of(container: &Value) -> Result<Row, Failure> {
    let text = container.compact();
    let container = serde_json::from_str(&text).map_err(|error| answer::unreadable(&error))?;
    Ok(row(&container, &Wanted::ALL, false, time::now()))
}

/// One container as a row, as of `now`.
fn row(container: &Listed<'_>, wanted: &Wanted, whole: bool, now: i64) -> Row {
    let cut = |text: &str, width: usize| match whole {
        true => text.to_owned(),
        false => ellipsis(text, width),
    };
    Row::new()
        .wanted(wanted, "ID", || {
            let id = printable(&container.id);
            match whole {
                true => id,
                false => short_id(&id).to_owned(),
            }
        })
        .wanted(wanted, "Image", || image(container, whole))
        .wanted(wanted, "Command", || {
            quoted(&cut(&printable(&container.command), 20))
        })
        .wanted(wanted, "CreatedAt", || time::created_at(container.created))
        .wanted(wanted, "RunningFor", || duration::ago(container.created, now))
        .wanted(wanted, "Ports", || ports::summary(&container.ports.read()))
        .wanted(wanted, "State", || printable(&container.state))
        .wanted(wanted, "Status", || printable(&container.status))
        .wanted(wanted, "Size", || sizes(container))
        .wanted(wanted, "Names", || {
            let names = container.names.iter().flatten();
            let names = names.map(|name| name.trim_start_matches('/'));
            let shown: Vec<&str> = names.filter(|name| whole || !name.contains('/')).collect();
            shown.join(",")
        })
        .wanted(wanted, "Labels", || pairs(&container.labels.read()))
        .wanted(wanted, "Mounts", || {
            let mounts = container.mounts.read();
            let mounts = mounts.items().iter().map(|mount| {
                let name = mount.at(&["Name"]).text();
                let source = mount.at(&["Source"]).text();
                cut(if name.is_empty() { source } else { name }, 15)
            });
            mounts.collect::<Vec<String>>().join(",")
        })
        .wanted(wanted, "Networks", || {
            let settings = container.network_settings.read();
            let networks = settings.at(&["Networks"]).members().iter();
            let names: Vec<&str> = networks.map(|(name, _)| name.as_str()).collect();
            names.join(",")
        })
        .wanted(wanted, "LocalVolumes", || {
            let mounts = container.mounts.read();
            let local = mounts.items().iter();
            let local = local.filter(|mount| mount.at(&["Driver"]).text() == "local");
            local.count().to_string()
        })
        .wanted(wanted, "Platform", || platform(container))
        .wanted(wanted, "IPAddresses", || addresses(container))
        .wanted(wanted, "HealthStatus", || {
            container.health.read().at(&["Status"]).text().to_owned()
        })
        .methods(wanted, "Label", || container.labels.read())
}

/// A command line within quotes.
fn quoted(command: &str) -> String {
    format!(
        "\"{}\"",
        command
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
            .replace('\t', "\\t")
    )
}

fn sizes(container: &Listed<'_>) -> String {
    let (written, root) = (container.size_rw, container.size_root_fs);
    match root > 0.0 {
        true => format!("{} (virtual {})", size::decimal3(written), size::decimal3(root)),
        false => size::decimal3(written),
    }
}

fn platform(container: &Listed<'_>) -> Value {
    let descriptor = container.image_manifest_descriptor.read();
    let platform = descriptor.at(&["platform"]);
    match platform {
        Value::Object(members) => {
            let parts = ["os", "architecture", "variant"].map(|key| platform.at(&[key]).text());
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            shown_as(members.clone(), parts.join("/"))
        }
        _ => Value::Null,
    }
}

/// An object that is written as `text` outside JSON.
fn shown_as(mut members: Vec<(String, Value)>, text: String) -> Value {
    members.push((template::WRITTEN.to_owned(), text.into()));
    Value::Object(members)
}

/// A container's addresses, each with its network.
fn addresses(container: &Listed<'_>) -> Value {
    let mut found = Vec::new();
    let settings = container.network_settings.read();
    for (network, endpoint) in settings.at(&["Networks"]).members() {
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

fn image(container: &Listed<'_>, whole: bool) -> String {
    let name = printable(&container.image);
    if name.is_empty() {
        return "<no image>".into();
    }
    if whole {
        return name;
    }
    let id: &str = &container.image_id;
    let short = short_id(id);
    if short == short_id(&name) && name.starts_with("sha256:") || name == id {
        return short.to_owned();
    }
    // Only a name with a digest is shown in another way.
    if !name.contains('@') {
        return name;
    }
    match spec::Reference::parse_normalized(&name) {
        Ok(reference) if reference.digest().is_some() => reference.familiar_name(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &[u8] =
        br#"[{"Id":"0123456789abcdef0123","Names":["/web","/db/link"],"Image":"nginx","ImageID":"sha256:00",
        "Command":"nginx -g 'daemon off;' and more","Created":1,"Ports":[{"PrivatePort":80,"Type":"tcp"}],
        "Labels":{"b":"2","a":"1"},"State":"running","Status":"Up 3 seconds (healthy)","SizeRw":2,"SizeRootFs":1000,
        "ImageManifestDescriptor":{"platform":{"architecture":"arm64","os":"linux","variant":"v8"}},
        "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"10.0.0.2"}}},"Health":{"Status":"healthy","FailingStreak":0},
        "Mounts":[{"Type":"volume","Name":"a-very-long-volume-name","Driver":"local"}]}]"#;

    fn show(format: Option<&str>) -> String {
        let containers: Vec<Listed<'_>> = answer::rows(WEB).unwrap();
        table(&Format::new(format, false), false, &containers, false).unwrap()
    }

    #[test]
    fn the_usual_table() {
        let text = show(None);
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
        let show = |text: &str| show(Some(text));
        assert_eq!(
            show("{{.Label \"b\"}} {{.Labels}} {{.Mounts}} {{.LocalVolumes}} {{.Networks}}"),
            "2 a=1,b=2 a-very-long-vo… 1 bridge\n"
        );
        assert_eq!(show("{{.Size}}"), "2B (virtual 1kB)\n");
        assert_eq!(
            show("{{.Platform}} {{.IPAddresses}} {{.HealthStatus}} {{.State}}"),
            "linux/arm64/v8 [bridge/10.0.0.2] healthy running\n"
        );
    }

    #[test]
    fn a_row_of_another_answer_is_the_same() {
        let answer = Value::parse(WEB).unwrap();
        let row = row_of(answer.items().first().unwrap()).unwrap();
        let listing = Listing {
            columns: COLUMNS,
            table: "",
            quiet: "",
            kind: KIND,
        };
        let json = Table::new(&listing, &Format::new(Some("json"), false)).unwrap();
        assert_eq!(json.render([row]).unwrap(), show(Some("json")));
    }
}
