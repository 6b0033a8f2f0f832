//! `history`: the layers of an image and what made them.

use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{duration, ellipsis, printable, short_id, size, time};
use crate::session::{Session, print};

pub const COMMAND: Command = Command::new(
    "history",
    "Show the history of an image",
    "[OPTIONS] IMAGE",
    Arity::Exactly(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    FORMAT,
    Flag::bool("human", "Show sizes and dates for people")
        .short('H')
        .default("true"),
    Flag::bool("no-trunc", "Do not cut values short"),
    Flag::text("platform", "Show one platform of the image"),
    Flag::bool("quiet", "Show IDs only").short('q'),
]]);

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    kind: "*formatter.historyContext",
};

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let path = Query::new(format!("/images/{}/history", name(matches.arg(0))))
        .text("platform", &platform_document(matches.text("platform"))?)
        .build();
    let history = session.client.get(&path).await?.document().await?;
    let (whole, human) = (matches.bool("no-trunc"), matches.bool("human"));
    let rows = history.items().iter().map(|item| {
        let id = item.at(&["Id"]).text();
        let created = item.at(&["Created"]).int();
        let by = printable(&item.at(&["CreatedBy"]).text().replace('\t', " "));
        let bytes = item.at(&["Size"]).int();
        let at = time::local_rfc3339(created);
        Row::new()
            .cell(
                "ID",
                if whole {
                    id.to_owned()
                } else {
                    short_id(id).to_owned()
                },
            )
            .cell("CreatedAt", at.clone())
            .cell(
                "CreatedSince",
                if human {
                    duration::ago(created, time::now())
                } else {
                    at
                },
            )
            .cell("CreatedBy", if whole { by } else { ellipsis(&by, 45) })
            .cell(
                "Size",
                if human {
                    size::decimal3(bytes as f64)
                } else {
                    bytes.to_string()
                },
            )
            .cell("Comment", printable(item.at(&["Comment"]).text()))
    });
    let format = Format::new(matches.text("format"), matches.bool("quiet"));
    print(&render(&LISTING, &format, rows.collect())?)?;
    Ok(0)
}

/// A platform as the API takes it in a query: a JSON document.
pub fn platform_document(text: Option<&str>) -> Result<String, crate::failure::Failure> {
    let Some(text) = text else {
        return Ok(String::new());
    };
    let invalid =
        |error: spec::PlatformError| crate::failure::Failure::text(format!("invalid platform: {error}"));
    let platform: spec::Platform = text.parse().map_err(invalid)?;
    Ok(serde_json::json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant.unwrap_or_default(),
    })
    .to_string())
}

/// The same of a flag that may be given several times, and takes several with commas between them.
pub fn platform_documents(texts: &[String]) -> Result<Vec<String>, crate::failure::Failure> {
    let each = texts.iter().flat_map(|text| text.split(','));
    each.map(|text| platform_document(Some(text))).collect()
}
