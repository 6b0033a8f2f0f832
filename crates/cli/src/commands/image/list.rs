//! `images`: lists images, one row per tag.

use super::tree;
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::container::list::pairs;
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{duration, short_id, size, time};
use crate::grammar::filter::{self, Filters};
use crate::json::Value;
use crate::session::{Session, print};

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
    let images = session.client.get(&path).await?.document().await?;
    let format = Format::new(configured.as_deref(), matches.bool("quiet"));
    let digests = matches.bool("digests") || format.mentions(".Digest");
    print(&table(
        &images,
        &format,
        matches.bool("digests"),
        digests,
        matches.bool("no-trunc"),
    )?)?;
    Ok(0)
}

fn table(
    images: &Value,
    format: &Format<'_>,
    column: bool,
    digests: bool,
    whole: bool,
) -> Result<String, crate::failure::Failure> {
    let mut sorted: Vec<&Value> = images.items().iter().collect();
    sorted.sort_by_key(|image| std::cmp::Reverse(image.at(&["Created"]).int()));
    let mut rows = Vec::new();
    for image in sorted {
        for (repository, tag, digest) in names(image, digests) {
            rows.push(row(image, &repository, &tag, &digest, whole));
        }
    }
    let table = if column {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    render(
        &Listing {
            columns: COLUMNS,
            table,
            quiet: "{{.ID}}",
            kind: "*formatter.imageContext",
        },
        format,
        rows,
    )
}

/// Repository, tag and digest of every row an image has.
fn names(image: &Value, digests: bool) -> Vec<(String, String, String)> {
    let none = || "<none>".to_owned();
    let texts = |key: &str| -> Vec<String> {
        image
            .at(&[key])
            .items()
            .iter()
            .map(|item| item.text().to_owned())
            .filter(|text| !text.starts_with("<none>"))
            .collect()
    };
    let split = |text: &String, at: char| {
        text.rsplit_once(at)
            .map(|(left, right)| (left.to_owned(), right.to_owned()))
    };
    let tags: Vec<_> = texts("RepoTags")
        .iter()
        .filter_map(|text| split(text, ':'))
        .collect();
    let known: Vec<_> = texts("RepoDigests")
        .iter()
        .filter_map(|text| split(text, '@'))
        .collect();
    let mut out = Vec::new();
    for (repository, tag) in &tags {
        let of: Vec<_> = known.iter().filter(|(name, _)| name == repository).collect();
        if digests && !of.is_empty() {
            out.extend(
                of.iter()
                    .map(|(_, digest)| (repository.clone(), tag.clone(), digest.clone())),
            );
        } else {
            out.push((repository.clone(), tag.clone(), none()));
        }
    }
    for (repository, digest) in &known {
        if !tags.iter().any(|(name, _)| name == repository) {
            let row = (
                repository.clone(),
                none(),
                if digests { digest.clone() } else { none() },
            );
            if !out.contains(&row) {
                out.push(row);
            }
        }
    }
    if out.is_empty() {
        out.push((none(), none(), none()));
    }
    out
}

fn row(image: &Value, repository: &str, tag: &str, digest: &str, whole: bool) -> Row {
    let id = image.at(&["Id"]).text();
    let created = image.at(&["Created"]).int();
    let bytes = size::decimal3(image.at(&["Size"]).float());
    let count = |key: &str| match image.at(&[key]) {
        Value::Number(number) if number.as_i64().is_some_and(|count| count >= 0) => {
            Some(number.as_i64().unwrap_or(0))
        }
        _ => None,
    };
    let shared = count("SharedSize").map(|shared| shared as f64);
    let unique = shared.map(|shared| image.at(&["Size"]).float() - shared);
    Row::new()
        .cell(
            "ID",
            if whole {
                id.to_owned()
            } else {
                short_id(id).to_owned()
            },
        )
        .cell("Repository", repository)
        .cell("Tag", tag)
        .cell("Digest", digest)
        .cell("CreatedSince", duration::ago(created, time::now()))
        .cell("CreatedAt", time::created_at(created))
        .cell("Size", bytes)
        .cell("VirtualSize", size::decimal(image.at(&["Size"]).float()))
        .cell(
            "Containers",
            count("Containers").map_or_else(|| "N/A".to_owned(), |count| count.to_string()),
        )
        .cell(
            "SharedSize",
            shared.map_or_else(|| "N/A".to_owned(), size::decimal),
        )
        .cell(
            "UniqueSize",
            unique.map_or_else(|| "N/A".to_owned(), size::decimal),
        )
        .method("Labels", Value::from(pairs(image.at(&["Labels"]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_per_tag() {
        let images = Value::parse(
            br#"[{"Id":"sha256:5438e772e7e1788f","Created":1,"RepoTags":["busybox:latest","h:5000/a/b:1"],
            "RepoDigests":["busybox@sha256:aa"],"Size":3096682,"Containers":-1,"SharedSize":-1},
            {"Id":"sha256:00","Created":2,"RepoTags":[],"RepoDigests":[],"Size":5}]"#,
        )
        .unwrap();
        let text = table(&images, &Format::new(None, false), false, false, false).unwrap();
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
            &images,
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
