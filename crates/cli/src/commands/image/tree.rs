//! `images --tree`: each image with the platforms its index names, as Docker's client draws it.
//!
//! ```text
//!                                                               Info ->  U In Use
//!
//! IMAGE               ID             DISK USAGE   CONTENT SIZE   EXTRA
//! app:1               a1b2c3d4e5f6       12.1MB         3.64MB   U
//! ├─ linux/amd64      0a1b2c3d4e5f       12.1MB         3.64MB   U
//! └─ linux/arm64      5f4e3d2c1b0a           0B             0B
//! ```
//!
//! Columns that would leave the names less than [`LEAST_NAME`] are dropped from the right. Of an image with several names
//! the shortest stands beside the values, the longer ones above it. Colours are for terminals only and say nothing that
//! the text does not: what is not here has 0B.

use std::cmp::Reverse;
use std::fmt::Write as _;

use crate::client::query::Query;
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::format::{ellipsis, printable, short_id, size};
use crate::grammar::filter::Filters;
use crate::json::Value;
use crate::session::{Session, print};
use crate::terminal;

/// Columns between two columns of the table.
const SPACING: usize = 3;
/// What the names keep of a narrow terminal.
const LEAST_NAME: usize = 12;
/// Nothing is drawn for terminals narrower than this.
const LEAST_WIDTH: usize = 20;
/// Columns the legend takes.
const LEGEND: usize = 18;
/// Heading and width of what follows the name.
const COLUMNS: [(&str, usize); 4] = [("ID", 12), ("DISK USAGE", 10), ("CONTENT SIZE", 12), ("EXTRA", 5)];

/// SGR parameters (ECMA-48).
const BOLD: &str = "1";
const FAINT: &str = "2";
const NAME: &str = "34;1";
const CHIP: &str = "38;5;0;48;5;14";

/// An image or one of its platforms.
#[derive(Default)]
struct Node {
    id: String,
    disk: f64,
    content: f64,
    used: bool,
    here: bool,
}

struct Top {
    /// Longest first.
    names: Vec<String>,
    node: Node,
    children: Vec<(String, Node)>,
}

/// Refuses what a tree can't do, asks for the images and shows them.
pub async fn run(session: &Session, matches: &Matches, filters: &Filters) -> Outcome {
    for (flag, given) in [
        ("quiet", matches.bool("quiet")),
        ("no-trunc", matches.bool("no-trunc")),
        ("digests", matches.bool("digests")),
        ("format", matches.text("format").is_some()),
    ] {
        if given {
            return Err(Failure::text(format!(
                "--{flag} is not yet supported with --tree"
            )));
        }
    }
    let path = Query::new("/images/json")
        .flag("all", matches.bool("all"))
        .text("filters", &filters.document())
        .flag("manifests", true)
        .build();
    let images = session.client.get(&path).await?.document().await?;
    let mut images: Vec<&Value> = images
        .items()
        .iter()
        .filter(|image| matches.bool("all") || !is_dangling(image))
        .collect();
    images.sort_by_key(|image| Reverse(image.at(&["Created"]).int()));
    let tops: Vec<Top> = images.into_iter().map(top).collect();
    print(&draw(&tops, terminal::width(), terminal::stdout_is_terminal()))?;
    Ok(0)
}

fn is_dangling(image: &Value) -> bool {
    ["RepoTags", "RepoDigests"].iter().all(|key| {
        let names = image.at(&[key]).items();
        names.iter().all(|name| name.text().starts_with("<none>"))
    })
}

fn top(image: &Value) -> Top {
    let text = |value: &Value| printable(value.text());
    let mut node = Node {
        id: text(image.at(&["Id"])),
        disk: image.at(&["Size"]).float(),
        content: 0.0,
        used: image.at(&["Containers"]).int() > 0,
        here: true,
    };
    let mut children = Vec::new();
    for manifest in image.at(&["Manifests"]).items() {
        let content = manifest.at(&["Size", "Content"]).float();
        // Attestations take space as well, but are nothing to run.
        node.content += content;
        if manifest.at(&["Kind"]).text() != "image" {
            continue;
        }
        let used = !manifest.at(&["ImageData", "Containers"]).items().is_empty();
        node.used |= used;
        let child = Node {
            id: text(manifest.at(&["ID"])),
            disk: manifest.at(&["Size", "Total"]).float(),
            content,
            used,
            here: manifest.at(&["Available"]).flag(),
        };
        children.push((platform(manifest.at(&["ImageData", "Platform"])), child));
    }
    let mut names: Vec<String> = image.at(&["RepoTags"]).items().iter().map(text).collect();
    names.retain(|name| !name.starts_with("<none>"));
    names.sort_by_key(|name| Reverse(name.len()));
    Top {
        names,
        node,
        children,
    }
}

fn platform(value: &Value) -> String {
    let part = |key: &str| printable(value.at(&[key]).text());
    let os = part("os");
    if os.is_empty() {
        return "unknown".to_owned();
    }
    let parts = [os, part("architecture"), part("variant")];
    let given: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    given.join("/")
}

/// The name's column and how many of the others there is room for.
struct Layout {
    name: usize,
    shown: &'static [(&'static str, usize)],
    colours: bool,
}

impl Layout {
    fn new(tops: &[Top], width: usize, colours: bool) -> Layout {
        let mut name = width;
        let mut shown = 0;
        for (_, column) in COLUMNS {
            let taken = column + SPACING;
            if name < taken + LEAST_NAME {
                break;
            }
            name -= taken;
            shown += 1;
        }
        let names = tops.iter().flat_map(|top| top.names.iter().map(String::len));
        // As Docker's client counts, in bytes: the branch before a platform has seven.
        let platforms = tops.iter().flat_map(|top| {
            top.children
                .iter()
                .map(|(platform, _)| platform.len() + "└─ ".len())
        });
        let untagged = tops.iter().any(|top| top.names.is_empty());
        let widest = names
            .chain(platforms)
            .chain(untagged.then_some("<untagged>".len()))
            .fold("IMAGE".len(), usize::max);
        Layout {
            name: name.min(widest),
            shown: COLUMNS.get(..shown).unwrap_or_default(),
            colours,
        }
    }

    /// A text in a colour, on a terminal.
    fn paint(&self, colour: &str, text: &str) -> String {
        match self.colours && !colour.is_empty() {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn named(&self, colour: &str, text: &str) -> String {
        let cut = ellipsis(text, self.name);
        let fill = self.name - cut.chars().count();
        format!("{}{}", self.paint(colour, &cut), " ".repeat(fill))
    }

    fn values(&self, colour: &str, node: &Node) -> String {
        let mut line = String::new();
        for (title, width) in self.shown {
            line.push_str(&" ".repeat(SPACING));
            let text = match *title {
                "ID" => short_id(&node.id).to_owned(),
                "DISK USAGE" => size::decimal3(node.disk),
                "CONTENT SIZE" => size::decimal3(node.content),
                _ => {
                    let (chip, length) = match (node.used, self.colours) {
                        (true, true) => (self.paint(CHIP, " U "), 3),
                        (true, false) => ("U".to_owned(), 1),
                        (false, _) => (String::new(), 0),
                    };
                    line.push_str(&chip);
                    line.push_str(&" ".repeat(width - length));
                    continue;
                }
            };
            let cut = ellipsis(&text, *width);
            let fill = " ".repeat(width - cut.chars().count());
            let painted = self.paint(colour, &cut);
            match *title {
                "ID" => line.extend([painted, fill]),
                _ => line.extend([fill, painted]),
            }
        }
        line
    }
}

fn draw(tops: &[Top], width: usize, colours: bool) -> String {
    // A file is as wide as it needs to be.
    let whole = if colours { width } else { usize::MAX };
    let width = width.max(LEAST_WIDTH);
    let layout = Layout::new(tops, width, colours);
    let legend = match colours {
        true => format!("Info → {} In Use ", layout.paint(CHIP, " U ")),
        false => "Info ->  U In Use ".to_owned(),
    };
    let mut out = format!("{}{legend}\n\n", " ".repeat(width.saturating_sub(LEGEND)));
    out.push_str(&layout.paint(BOLD, "IMAGE"));
    out.push_str(&" ".repeat(layout.name - "IMAGE".len()));
    for (title, column) in layout.shown {
        let (gap, fill) = (" ".repeat(SPACING), " ".repeat(column - title.len()));
        out.extend([gap, layout.paint(BOLD, title), fill]);
    }
    out.push('\n');
    let spaced = tops.iter().any(|top| !top.children.is_empty());
    for top in tops {
        let shortest = top.names.last();
        for name in top.names.iter().take(top.names.len().saturating_sub(1)) {
            let _ = writeln!(out, "{}", layout.paint(NAME, &ellipsis(name, whole)));
        }
        match shortest {
            Some(name) => out.push_str(&layout.named(NAME, name)),
            None => out.push_str(&layout.named(FAINT, "<untagged>")),
        }
        let _ = writeln!(out, "{}", layout.values("", &top.node));
        for (index, (platform, node)) in top.children.iter().enumerate() {
            let branch = match index + 1 == top.children.len() {
                true => "└─",
                false => "├─",
            };
            let colour = if node.here { "" } else { FAINT };
            out.push_str(&layout.named(colour, &format!("{branch} {platform}")));
            let _ = writeln!(out, "{}", layout.values(colour, node));
        }
        if spaced {
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest for a platform as the API tells it.
    fn manifest(id: &str, platform: &str, content: u64, unpacked: u64, users: &str) -> String {
        let mut parts = platform.split('/').skip(1);
        format!(
            r#"{{"ID":"sha256:{}","Kind":"image","Available":{},"Size":{{"Content":{content},"Total":{}}},
            "ImageData":{{"Platform":{{"os":"linux","architecture":"{}","variant":"{}"}},"Containers":[{users}]}}}}"#,
            id.repeat(32),
            content > 0,
            content + unpacked,
            parts.next().unwrap(),
            parts.next().unwrap_or_default(),
        )
    }

    fn tops() -> Vec<Top> {
        let several = [
            manifest("a2", "linux/amd64", 3_640_000, 8_500_000, "\"c1\""),
            manifest("a3", "linux/arm/v6", 0, 0, ""),
            manifest("a4", "linux/arm64/v8", 3_990_000, 8_800_000, ""),
            r#"{"ID":"sha256:eeee","Kind":"attestation","Available":true,"Size":{"Content":10,"Total":10}}"#
                .to_owned(),
        ];
        let documents = [
            format!(
                r#"{{"Id":"sha256:{}","RepoTags":["single:1"],"Size":1234567,"Containers":0,"Manifests":[{}]}}"#,
                "b1".repeat(32),
                manifest("b1", "linux/amd64", 234_567, 1_000_000, "")
            ),
            format!(
                r#"{{"Id":"sha256:{}","RepoTags":[],"Size":5,"Containers":0,"Manifests":[{}]}}"#,
                "c1".repeat(32),
                manifest("c1", "linux/amd64", 5, 0, "")
            ),
            format!(
                r#"{{"Id":"sha256:{}","RepoTags":["multi:latest","registry.example.org:5000/team/long/name/of/multi:2.0"],
                "Size":37800000,"Containers":1,"Manifests":[{}]}}"#,
                "a1".repeat(32),
                several.join(",")
            ),
        ];
        documents
            .iter()
            .map(|document| top(&Value::parse(document.as_bytes()).unwrap()))
            .collect()
    }

    /// As Docker's client 28.2 draws the same answer, but for its warning that the feature is new.
    #[test]
    fn drawn_as_docker_does() {
        let expected = "                                                              Info ->  U In Use

IMAGE                           ID             DISK USAGE   CONTENT SIZE   EXTRA
single:1                        b1b1b1b1b1b1       1.23MB          235kB
└─ linux/amd64                  b1b1b1b1b1b1       1.23MB          235kB

<untagged>                      c1c1c1c1c1c1           5B             5B
└─ linux/amd64                  c1c1c1c1c1c1           5B             5B

registry.example.org:5000/team/long/name/of/multi:2.0
multi:latest                    a1a1a1a1a1a1       37.8MB         7.63MB   U
├─ linux/amd64                  a2a2a2a2a2a2       12.1MB         3.64MB   U
├─ linux/arm/v6                 a3a3a3a3a3a3           0B             0B
└─ linux/arm64/v8               a4a4a4a4a4a4       12.8MB         3.99MB

";
        let drawn = draw(&tops(), 80, false);
        let drawn: Vec<&str> = drawn.lines().map(str::trim_end).collect();
        assert_eq!(drawn, expected.lines().collect::<Vec<_>>());
    }

    /// Without its colours.
    fn plain(coloured: &str) -> String {
        let mut plain = String::new();
        let mut rest = coloured;
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain + rest
    }

    #[test]
    fn narrow_terminals_get_fewer_columns_and_shorter_names() {
        let lines = |width| -> Vec<String> {
            let drawn = plain(&draw(&tops(), width, true));
            drawn.lines().map(str::to_owned).collect()
        };
        let sixty = lines(60);
        assert_eq!(
            sixty[2],
            "IMAGE               ID             DISK USAGE   CONTENT SIZE"
        );
        let forty = lines(40);
        assert_eq!(forty[2], "IMAGE          ID             DISK USAGE");
        assert_eq!(forty[4], "└─ linux/am…   b1b1b1b1b1b1       1.23MB");
        assert_eq!(forty[9], "registry.example.org:5000/team/long/nam…");
        let thirty = lines(30);
        assert_eq!(thirty[2], "IMAGE             ID          ");
        assert_eq!(thirty[13], "└─ linux/arm64…   a4a4a4a4a4a4");
    }

    #[test]
    fn colours_add_nothing_but_colour() {
        let coloured = draw(&tops(), 80, true);
        // On a terminal the mark is a chip with a margin.
        let expected = draw(&tops(), 80, false)
            .replace("Info ->  U In Use", "Info →  U  In Use")
            .replace("   U    \n", "    U   \n");
        assert_eq!(plain(&coloured), expected);
        assert!(coloured.contains("\x1b[2m├─ linux/arm/v6\x1b[0m"), "{coloured:?}");
    }

    #[test]
    fn what_a_registry_says_is_shown_and_not_obeyed() {
        let document = r#"{"Id":"sha256:a","RepoTags":["x:1"],"Manifests":[{"ID":"b","Kind":"image",
            "ImageData":{"Platform":{"os":"li\u001b[2Jnux","architecture":"amd64"}}}]}"#;
        let drawn = draw(&[top(&Value::parse(document.as_bytes()).unwrap())], 80, false);
        assert!(!drawn.contains('\x1b'), "{drawn:?}");
    }

    #[test]
    fn nothing_is_a_heading() {
        assert!(
            draw(&[], 80, false).ends_with("\n\nIMAGE   ID             DISK USAGE   CONTENT SIZE   EXTRA\n")
        );
    }
}
