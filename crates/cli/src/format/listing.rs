//! Lists of rows: the default table, `--format table …`, `--format json`, any template, and `-q`.
//!
//! A row is a list of named cells; a listing names its columns, the template of its default table, and the Go type
//! of its rows (for error texts). Methods (`.Label "x"`) are maps behind hidden names. What a long list does for each row
//! counts: a [`Table`] says which cells its format can look at, so that the others need not be made.

use super::table;
use crate::failure::Failure;
use crate::flags::Flag;
use crate::json::Value;
use crate::template::{Missing, Template};

/// The flag of every command that lists.
pub const FORMAT: Flag = Flag::text(
    "format",
    "Layout: 'table', 'table TEMPLATE', 'json' or a Go template",
);

pub struct Listing {
    /// Cell name and heading, e.g. ("ID", "CONTAINER ID").
    pub columns: &'static [(&'static str, &'static str)],
    /// The default table, without the word `table`.
    pub table: &'static str,
    /// What `-q` prints.
    pub quiet: &'static str,
    pub kind: &'static str,
}

/// One row under construction.
#[derive(Default)]
pub struct Row(Vec<(String, Value)>);

impl Row {
    pub fn new() -> Row {
        Row::default()
    }

    /// A cell that is there already is replaced.
    pub fn cell(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// A cell that is made only where it is wanted.
    pub fn wanted<V: Into<Value>>(self, wanted: &Wanted, name: &str, make: impl FnOnce() -> V) -> Row {
        match wanted.has(name) {
            true => self.cell(name, make()),
            false => self,
        }
    }

    /// A lookup by key, called with an argument.
    pub fn method(mut self, name: &str, table: Value) -> Row {
        self.0.push((format!("\0{name}"), table));
        self
    }

    /// Such a lookup, made only where it is wanted.
    pub fn methods(self, wanted: &Wanted, name: &str, make: impl FnOnce() -> Value) -> Row {
        match wanted.has(name) {
            true => self.method(name, make()),
            false => self,
        }
    }

    fn value(mut self) -> Value {
        self.0.sort_by(|left, right| left.0.cmp(&right.0));
        Value::Object(self.0)
    }
}

/// How a user asked for the rows.
pub struct Format<'a> {
    text: &'a str,
    quiet: bool,
}

impl<'a> Format<'a> {
    pub fn new(text: Option<&'a str>, quiet: bool) -> Format<'a> {
        Format {
            text: text.unwrap_or_default(),
            quiet,
        }
    }

    pub fn is_json(&self) -> bool {
        self.text == "json"
    }

    /// Whether the template mentions a cell; costly cells are asked for only then.
    pub fn mentions(&self, cell: &str) -> bool {
        self.text.contains(cell)
    }
}

/// The cells that a format can look at.
#[derive(Debug)]
pub struct Wanted(Option<Vec<String>>);

impl Wanted {
    /// Every cell there is.
    pub const ALL: Wanted = Wanted(None);

    /// Names are looked up ignoring case, as those of members are.
    pub fn has(&self, cell: &str) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|name| name.eq_ignore_ascii_case(cell));
        self.0.as_ref().is_none_or(named)
    }
}

/// A listing in the format that was asked for.
pub struct Table<'a> {
    listing: &'a Listing,
    body: String,
    heading: bool,
    template: Template,
}

impl<'a> Table<'a> {
    pub fn new(listing: &'a Listing, format: &Format<'_>) -> Result<Table<'a>, Failure> {
        let text = match format.text {
            "" | "table" if format.quiet => listing.quiet.to_owned(),
            "" | "table" => format!("table {}", listing.table),
            "json" => "{{json .}}".to_owned(),
            "raw" if format.quiet => listing.quiet.to_owned(),
            "raw" => raw(listing),
            other => other.to_owned(),
        };
        let (heading, body) = match text.strip_prefix("table") {
            Some(body) => (true, unescape(body.trim_start())),
            None => (false, unescape(&text)),
        };
        let template = Template::parse(&body)
            .map_err(|error| Failure::text(format!("failed to parse template: {error}")))?;
        Ok(Table {
            listing,
            body,
            heading,
            template,
        })
    }

    /// What its rows need to have.
    pub fn wanted(&self) -> Wanted {
        Wanted(self.template.members())
    }

    /// Renders rows, each as it comes; the text ends with a newline unless it is empty.
    pub fn render(&self, rows: impl IntoIterator<Item = Row>) -> Result<String, Failure> {
        let kind = Missing::Type(self.listing.kind);
        let failed = |error| Failure::text(format!("failed to execute template: {error}"));
        // A whole row in JSON is safe within HTML, as Go writes it.
        let whole = self.body == "{{json .}}";
        let mut out = String::new();
        if self.heading {
            let columns = self.listing.columns.iter();
            let mut cells: Vec<(String, Value)> = columns
                .map(|(name, title)| ((*name).to_owned(), Value::from(*title)))
                .collect();
            cells.extend(["Label", "EnableIPv6"].map(|name| (format!("\0{name}"), Value::Null)));
            let heading = Template::for_heading(&self.body)
                .and_then(|template| template.execute(&Value::Object(cells), kind))
                .map_err(failed)?;
            out.push_str(&heading);
            out.push('\n');
        }
        for row in rows {
            let row = self.template.execute(&row.value(), kind).map_err(failed)?;
            match whole {
                true => out.push_str(&for_html(&row)),
                false => out.push_str(&row),
            }
            out.push('\n');
        }
        Ok(if self.heading {
            table::align(&out, table::DOCKER)
        } else {
            out
        })
    }
}

/// Renders rows; the text ends with a newline unless it is empty.
pub fn render(listing: &Listing, format: &Format<'_>, rows: Vec<Row>) -> Result<String, Failure> {
    Table::new(listing, format)?.render(rows)
}

fn for_html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// One member a line, under the names that Docker gives them.
fn raw(listing: &Listing) -> String {
    let named: &[(&str, &str)] = match listing.kind {
        "*formatter.ContainerContext" => &[
            ("container_id", "ID"),
            ("image", "Image"),
            ("command", "Command"),
            ("created_at", "CreatedAt"),
            ("state", "State"),
            ("status", "Status"),
            ("names", "Names"),
            ("labels", "Labels"),
            ("ports", "Ports"),
        ],
        "*formatter.imageContext" => &[
            ("repository", "Repository"),
            ("tag", "Tag"),
            ("image_id", "ID"),
            ("created_at", "CreatedAt"),
            ("virtual_size", "Size"),
        ],
        "*network.networkContext" => &[
            ("network_id", "ID"),
            ("name", "Name"),
            ("driver", "Driver"),
            ("scope", "Scope"),
        ],
        "*formatter.volumeContext" => &[("name", "Name"), ("driver", "Driver")],
        "*formatter.diskUsageContext" => &[
            ("type", "Type"),
            ("total", "TotalCount"),
            ("active", "Active"),
            ("size", "Size"),
            ("reclaimable", "Reclaimable"),
        ],
        _ => {
            let columns = listing.columns.iter();
            return columns
                .map(|(name, _)| format!("{}: {{{{.{name}}}}}\n", name.to_lowercase()))
                .collect();
        }
    };
    // Sizes are shown where they were asked for.
    let sized = listing.kind == "*formatter.ContainerContext" && listing.table.contains("{{.Size}}");
    let size = sized.then_some(&("size", "Size"));
    // An empty value leaves no space behind the colon.
    let line = |(label, name): &(&str, &str)| format!("{label}:{{{{pad .{name} 1 0}}}}\n");
    named.iter().chain(size).map(line).collect()
}

/// `\t` and `\n` typed in a shell's single quotes.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        columns: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
        table: "{{.ID}}\t{{.Names}}",
        quiet: "{{.ID}}",
        kind: "*formatter.ContainerContext",
    };

    fn rows() -> Vec<Row> {
        let labels = Value::Object(vec![("a.b".into(), "v".into())]);
        vec![
            Row::new()
                .cell("Names", "web")
                .cell("ID", "abc")
                .method("Label", labels),
        ]
    }

    fn show(format: Option<&str>, quiet: bool) -> String {
        render(&LISTING, &Format::new(format, quiet), rows()).unwrap_or_else(|failure| failure.to_string())
    }

    #[test]
    fn cells_that_no_format_looks_at_are_not_made() {
        let made = |format: Option<&str>| {
            let table = Table::new(&LISTING, &Format::new(format, false)).unwrap();
            let (wanted, made) = (table.wanted(), std::cell::Cell::new(0));
            let count = || {
                made.set(made.get() + 1);
                "x"
            };
            let row = |_| {
                Row::new()
                    .wanted(&wanted, "ID", count)
                    .wanted(&wanted, "Names", count)
                    .wanted(&wanted, "Costly", count)
            };
            let text = table.render((0..10).map(row)).unwrap();
            assert_eq!(
                text.lines().filter(|line| line.contains('x')).count(),
                10,
                "{text}"
            );
            made.get()
        };
        assert_eq!(made(None), 20);
        assert_eq!(made(Some("{{.ID}}")), 10);
        assert_eq!(made(Some("{{.id}} {{.costly}}")), 20);
        assert_eq!(made(Some("json")), 30);
        assert_eq!(made(Some("x{{range $name, $cell := .}}{{$name}}{{end}}")), 30);
    }

    #[test]
    fn every_way_to_ask() {
        assert_eq!(show(None, false), "CONTAINER ID   NAMES\nabc            web\n");
        assert_eq!(show(None, true), "abc\n");
        assert_eq!(show(Some("json"), false), "{\"ID\":\"abc\",\"Names\":\"web\"}\n");
        assert_eq!(show(Some("{{.Names}}\\t{{.Label \"a.b\"}}"), false), "web\tv\n");
        assert_eq!(
            show(Some("table {{.Names}}\\t{{.Label \"a.b-c\"}}"), false),
            "NAMES     b c\nweb       \n"
        );
        assert_eq!(show(Some("table {{upper .Names}}"), false), "NAMES\nWEB\n");
        assert_eq!(
            show(Some("{{.Foo"), false),
            "failed to parse template: template: :1: unclosed action"
        );
        assert_eq!(
            show(Some("{{.Foo}}"), false),
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"
        );
    }
}
