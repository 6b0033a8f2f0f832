//! `network dns-log`: what containers asked the embedded resolver, and who answered.

use std::time::Duration;

use api_types::dns_log::{DnsLog, DnsQuery};

use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::session::{Session, print};

/// Between two looks of `--follow`.
const PAUSE: Duration = Duration::from_millis(300);

pub const COMMAND: Command = Command::new(
    "dns-log",
    "Show name queries of containers and who answered them",
    "[OPTIONS] [CONTAINER|NETWORK]",
    Arity::Between(0, 1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[Flag::bool("follow", "Go on showing what is asked").short('f')]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let of = matches.args.first().map(String::as_str).unwrap_or_default();
    let mut since = 0;
    loop {
        let path = Query::new("/networks/dns/log")
            .text("of", of)
            .text("since", &since.to_string())
            .build();
        let log: DnsLog = session.client.get(&path).await?.model().await?;
        since = log.queries.last().map_or(since, |query| query.time);
        print(&log.queries.iter().map(line).collect::<String>())?;
        if !matches.bool("follow") {
            return Ok(0);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn line(query: &DnsQuery) -> String {
    let time = i64::try_from(query.time)
        .ok()
        .and_then(|us| jiff::Timestamp::from_microsecond(us).ok())
        .map_or_else(String::new, |time| format!("{time:.6}"));
    let answers = match query.answers.as_slice() {
        [] => String::new(),
        answers => format!(" {}", answers.join(" ")),
    };
    let name = match query.name.as_str() {
        "" => "?",
        name => name,
    };
    format!(
        "{time} {} {name} {} {} by {} in {}.{:03} ms{answers}\n",
        query.container,
        query.kind,
        query.code,
        query.answered_by,
        query.microseconds / 1000,
        query.microseconds % 1000
    )
}
