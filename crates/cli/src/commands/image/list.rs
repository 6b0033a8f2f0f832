//! `images`: lists images, one row per tag.

use super::tree;
use crate::answer::{self, Part, Text};
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::container::list::pairs;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, Table, Wanted};
use crate::format::{duration, short_id, size, time};
use crate::grammar::filter::{self, Filters};
use crate::json::Value;
use crate::session::{Session, print};
use serde::Deserialize;

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Show images between build steps too").short('a'),
    Flag::bool("digests", "Show digests"),
    Flag::list("filter", "Show only what matches")
        .short('f')
        .value("filter")
        .check(filter::check),
    FORMAT,
    Flag::bool("no-trunc", "Do not cut values short"),
    Flag::bool("quiet", "Show IDs only").short('q'),
    Flag::bool("tree", "Show the platforms of each image"),
];

pub const IMAGES: Command = Command::new(
    "images",
    "List images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    Arity::AtMost(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[FLAGS]);

/// The same under `image`.
pub const LS: Command = Command::new(
    "ls",
    "List images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    Arity::AtMost(1),
    |session, matches| Box::pin(run(session, matches)),
)
.aliases(&["list"])
.flags(&[FLAGS]);

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// One image of the daemon's answer.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Listed<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    repo_tags: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    repo_digests: Option<Vec<Text<'a>>>,
    /// Unix seconds.
    created: i64,
    size: f64,
    /// Negative where nobody counted, as in the next.
    containers: Option<i64>,
    shared_size: Option<i64>,
    #[serde(borrow)]
    labels: Part<'a>,
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let mut filters = Filters::read(matches.list("filter"));
    if let Some(reference) = matches.args.first() {
        filters.add("reference", reference.as_str());
    }
    if matches.bool("tree") {
        return tree::run(session, matches, &filters).await;
    }
    let configured = match matches.text("format") {
        Some(text) => Some(text.to_owned()),
        None if matches.bool("quiet") => None,
        None => session.config().text("imagesFormat"),
    };
    let path = Query::new("/images/json")
        .flag("all", matches.bool("all"))
        .text("filters", &filters.document())
        .build();
    let bytes = session.client.get(&path).await?.bytes().await?;
    let images: Vec<Listed<'_>> = answer::rows(&bytes)?;
    let format = Format::new(configured.as_deref(), matches.bool("quiet"));
    let digests = matches.bool("digests") || format.mentions(".Digest");
    print(&table(
        images,
        &format,
        matches.bool("digests"),
        digests,
        matches.bool("no-trunc"),
    )?)?;
    Ok(0)
}

fn table(
    mut images: Vec<Listed<'_>>,
    format: &Format<'_>,
    column: bool,
    digests: bool,
    whole: bool,
) -> Result<String, Failure> {
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let listing = Listing {
        columns: COLUMNS,
        table: if column {
            "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        } else {
            "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        },
        quiet: "{{.ID}}",
        kind: "*formatter.imageContext",
    };
    let table = Table::new(&listing, format)?;
    let (wanted, now) = (&table.wanted(), time::now());
    table.render(images.iter().flat_map(|image| {
        let names = names(image, digests).into_iter();
        names.map(move |name| row(image, &name, wanted, whole, now))
    }))
}

/// What one row of an image is called.
#[derive(PartialEq)]
struct Name<'a> {
    repository: &'a str,
    tag: &'a str,
    digest: &'a str,
}

const NONE: &str = "<none>";

/// The name of every row an image has.
fn names<'a>(image: &'a Listed<'_>, digests: bool) -> Vec<Name<'a>> {
    let split = |texts: &'a Option<Vec<Text<'_>>>, at: char| -> Vec<(&'a str, &'a str)> {
        let texts = texts.iter().flatten().map(|text| &**text);
        let named = texts.filter(|text| !text.starts_with(NONE));
        named.filter_map(|text| text.rsplit_once(at)).collect()
    };
    let tags = split(&image.repo_tags, ':');
    let known = split(&image.repo_digests, '@');
    let mut out = Vec::new();
    for &(repository, tag) in &tags {
        let before = out.len();
        if digests {
            let of = known.iter().filter(|(name, _)| *name == repository);
            out.extend(of.map(|&(_, digest)| Name {
                repository,
                tag,
                digest,
            }));
        }
        if out.len() == before {
            out.push(Name {
                repository,
                tag,
                digest: NONE,
            });
        }
    }
    for &(repository, digest) in &known {
        if !tags.iter().any(|(name, _)| *name == repository) {
            let name = Name {
                repository,
                tag: NONE,
                digest: if digests { digest } else { NONE },
            };
            if !out.contains(&name) {
                out.push(name);
            }
        }
    }
    if out.is_empty() {
        out.push(Name {
            repository: NONE,
            tag: NONE,
            digest: NONE,
        });
    }
    out
}

fn row(image: &Listed<'_>, name: &Name<'_>, wanted: &Wanted, whole: bool, now: i64) -> Row {
    let counted = |count: Option<i64>| count.filter(|count| *count >= 0);
    let shared = counted(image.shared_size).map(|shared| shared as f64);
    let not_counted = || "N/A".to_owned();
    Row::new()
        .wanted(wanted, "ID", || match whole {
            true => (*image.id).to_owned(),
            false => short_id(&image.id).to_owned(),
        })
        .wanted(wanted, "Repository", || name.repository)
        .wanted(wanted, "Tag", || name.tag)
        .wanted(wanted, "Digest", || name.digest)
        .wanted(wanted, "CreatedSince", || duration::ago(image.created, now))
        .wanted(wanted, "CreatedAt", || time::created_at(image.created))
        .wanted(wanted, "Size", || size::decimal3(image.size))
        .wanted(wanted, "VirtualSize", || size::decimal(image.size))
        .wanted(wanted, "Containers", || {
            counted(image.containers).map_or_else(not_counted, |count| count.to_string())
        })
        .wanted(wanted, "SharedSize", || {
            shared.map_or_else(not_counted, size::decimal)
        })
        .wanted(wanted, "UniqueSize", || {
            shared.map_or_else(not_counted, |shared| size::decimal(image.size - shared))
        })
        .methods(wanted, "Labels", || Value::from(pairs(&image.labels.read())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_per_tag() {
        let bytes =
            br#"[{"Id":"sha256:5438e772e7e1788f","Created":1,"RepoTags":["busybox:latest","h:5000/a/b:1"],
            "RepoDigests":["busybox@sha256:aa"],"Size":3096682,"Containers":-1,"SharedSize":-1},
            {"Id":"sha256:00","Created":2,"RepoTags":[],"RepoDigests":null,"Size":5}]"#;
        let images = || answer::rows(bytes).unwrap();
        let text = table(images(), &Format::new(None, false), false, false, false).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "REPOSITORY   TAG       IMAGE ID       CREATED        SIZE"
        );
        assert!(lines[1].starts_with("<none>       <none>    00 "), "{text}");
        assert!(
            lines[2].starts_with("busybox      latest    5438e772e7e1   56 years ago   3.1MB"),
            "{text}"
        );
        let json = table(
            images(),
            &Format::new(Some("{{.Repository}}:{{.Tag}}@{{.Digest}}"), false),
            false,
            true,
            false,
        );
        assert_eq!(
            json.unwrap(),
            "<none>:<none>@<none>\nbusybox:latest@sha256:aa\nh:5000/a/b:1@<none>\n"
        );
    }
}
