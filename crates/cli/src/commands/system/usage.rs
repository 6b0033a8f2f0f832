//! `system df`: what takes room on disk.

use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::{container, volume};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{duration, short_id, size, time};
use crate::json::Value;
use crate::session::{Session, print};

pub const COMMAND: Command = Command::new(
    "df",
    "Show disk usage",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[FORMAT, Flag::bool("verbose", "Show every object").short('v')]]);

const SUMMARY: Listing = Listing {
    columns: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
    kind: "*formatter.diskUsageContext",
};

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let verbose = matches.bool("verbose");
    let path = Query::new("/system/df").flag("verbose", verbose).build();
    let usage = session.client.get(&path).await?.document().await?;
    let format = Format::new(matches.text("format"), false);
    if verbose {
        let code = details(&usage, &format)?;
        if !format.is_json() {
            everything(session).await?;
        }
        return Ok(code);
    }
    let rows = [
        ("Images", "ImageUsage", "Images"),
        ("Containers", "ContainerUsage", "Containers"),
        ("Local Volumes", "VolumeUsage", "Volumes"),
        ("Build Cache", "BuildCacheUsage", "BuildCache"),
    ]
    .map(|(name, key, legacy)| row(name, &Totals::read(&usage, key, legacy)));
    print(&render(&SUMMARY, &format, rows.into())?)?;
    Ok(0)
}

/// All that is below the data root; an engine that does not tell is let be.
async fn everything(session: &Session) -> Result<(), Failure> {
    let Ok(reply) = session.client.get("/system/space").await else {
        return Ok(());
    };
    let space = reply.document().await?;
    let names = [
        ("Images", "Images"),
        ("Build cache", "BuildCache"),
        ("Containers", "Containers"),
        ("Logs", "Logs"),
        ("Files of containers", "ContainerFiles"),
        ("Volumes", "Volumes"),
        ("Half downloads", "Downloads"),
        ("Removed", "Trash"),
        ("Database", "Database"),
        ("Other", "Other"),
        ("All", "Total"),
    ];
    let rows = names.map(|(name, key)| {
        Row::new()
            .cell("Type", name)
            .cell("Size", size::decimal(space.at(&[key]).float()))
    });
    let listing = Listing {
        columns: &[("Type", "TYPE"), ("Size", "SIZE")],
        table: "{{.Type}}\t{{.Size}}",
        quiet: "{{.Type}}",
        kind: "*formatter.diskUsageContext",
    };
    let table = render(&listing, &Format::new(None, false), rows.into())?;
    print(&format!("Disk space by what it is there for:\n\n{table}"))
}

#[derive(Default)]
struct Totals {
    count: i64,
    active: i64,
    size: f64,
    reclaimable: f64,
}

impl Totals {
    /// From the daemon's own sums (API 1.52), or from the lists of old.
    fn read(usage: &Value, key: &str, legacy: &str) -> Totals {
        let sums = usage.at(&[key]);
        let list = usage.at(&[legacy]).items();
        if !sums.is_null() && (list.is_empty() || !sums.at(&["TotalCount"]).is_null()) {
            return Totals {
                count: sums.at(&["TotalCount"]).int(),
                active: sums.at(&["ActiveCount"]).int(),
                size: sums.at(&["TotalSize"]).float(),
                reclaimable: sums.at(&["Reclaimable"]).float(),
            };
        }
        let mut totals = Totals {
            count: list.len() as i64,
            ..Totals::default()
        };
        for item in list {
            let (used, bytes) = match legacy {
                "Images" => (item.at(&["Containers"]).int() > 0, item.at(&["Size"]).float()),
                "Containers" => (
                    matches!(item.at(&["State"]).text(), "running" | "paused" | "restarting"),
                    item.at(&["SizeRw"]).float(),
                ),
                "Volumes" => (
                    item.at(&["UsageData", "RefCount"]).int() > 0,
                    item.at(&["UsageData", "Size"]).float().max(0.0),
                ),
                _ => (item.at(&["InUse"]).flag(), item.at(&["Size"]).float()),
            };
            totals.active += i64::from(used);
            totals.size += bytes;
            totals.reclaimable += if used { 0.0 } else { bytes };
        }
        if legacy == "Images" {
            let used = totals.size - totals.reclaimable;
            totals.size = usage.at(&["LayersSize"]).float();
            totals.reclaimable = (totals.size - used).max(0.0);
        }
        totals
    }
}

fn row(name: &str, totals: &Totals) -> Row {
    let percent = match totals.size > 0.0 && name != "Build Cache" {
        true => format!(" ({}%)", (totals.reclaimable / totals.size * 100.0) as i64),
        false => String::new(),
    };
    Row::new()
        .cell("Type", name)
        .cell("TotalCount", totals.count.to_string())
        .cell("Active", totals.active.to_string())
        .cell("Size", size::decimal(totals.size))
        .cell(
            "Reclaimable",
            format!("{}{percent}", size::decimal(totals.reclaimable)),
        )
}

fn items<'a>(usage: &'a Value, key: &str, legacy: &str) -> &'a [Value] {
    let new = usage.at(&[key, "Items"]).items();
    if new.is_empty() {
        usage.at(&[legacy]).items()
    } else {
        new
    }
}

fn details(usage: &Value, format: &Format<'_>) -> Outcome {
    if format.is_json() {
        print(&format!("{}\n", usage.compact()))?;
        return Ok(0);
    }
    let table = |name: &str, listing: &Listing, rows: Vec<Row>| -> Result<(), Failure> {
        print(&format!(
            "{name} space usage:\n\n{}\n",
            render(listing, &Format::new(None, false), rows)?
        ))
    };
    let images = items(usage, "ImageUsage", "Images").iter().map(|item| {
        let name = item
            .at(&["RepoTags"])
            .items()
            .first()
            .map(|tag| tag.text())
            .unwrap_or("<none>:<none>");
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let (bytes, shared) = (
            item.at(&["Size"]).float(),
            item.at(&["SharedSize"]).float().max(0.0),
        );
        Row::new()
            .cell("Repository", repository)
            .cell("Tag", tag)
            .cell("ID", short_id(item.at(&["Id"]).text()))
            .cell(
                "CreatedSince",
                duration::ago(item.at(&["Created"]).int(), time::now()),
            )
            .cell("Size", size::decimal3(bytes))
            .cell("SharedSize", size::decimal3(shared))
            .cell("UniqueSize", size::decimal(bytes - shared))
            .cell("Containers", item.at(&["Containers"]).int().to_string())
    });
    table("Images", &IMAGES, images.collect())?;
    let containers = items(usage, "ContainerUsage", "Containers").iter();
    let rows: Result<Vec<Row>, Failure> = containers
        .map(|item| {
            let written = size::decimal3(item.at(&["SizeRw"]).float());
            Ok(container::list::row_of(item)?.cell("Size", written))
        })
        .collect();
    table("Containers", &CONTAINERS, rows?)?;
    let volumes = items(usage, "VolumeUsage", "Volumes")
        .iter()
        .map(volume::row)
        .collect();
    table("Local Volumes", &VOLUMES, volumes)?;
    let cache = items(usage, "BuildCacheUsage", "BuildCache");
    let since = |text: &str| duration::ago(time::seconds(text), time::now());
    let rows = cache.iter().map(|item| {
        Row::new()
            .cell("ID", item.at(&["ID"]).text().chars().take(12).collect::<String>())
            .cell("CacheType", item.at(&["Type"]).text())
            .cell("Size", size::decimal(item.at(&["Size"]).float()))
            .cell("CreatedSince", since(item.at(&["CreatedAt"]).text()))
            .cell("LastUsedSince", since(item.at(&["LastUsedAt"]).text()))
            .cell("UsageCount", item.at(&["UsageCount"]).int().to_string())
            .cell("Shared", item.at(&["Shared"]).flag().to_string())
    });
    let total: f64 = cache.iter().map(|item| item.at(&["Size"]).float()).sum();
    let text = render(&CACHE, &Format::new(None, false), rows.collect())?;
    print(&format!("Build cache usage: {}\n\n{text}", size::decimal(total)))?;
    Ok(0)
}

const IMAGES: Listing = Listing {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    quiet: "{{.ID}}",
    kind: "*formatter.imageContext",
};

const CONTAINERS: Listing = Listing {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    quiet: "{{.ID}}",
    kind: "*formatter.ContainerContext",
};

const VOLUMES: Listing = Listing {
    columns: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    quiet: "{{.Name}}",
    kind: "*formatter.volumeContext",
};

const CACHE: Listing = Listing {
    columns: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    quiet: "{{.ID}}",
    kind: "*formatter.buildCacheContext",
};
