//! `system prune`: removes everything unused.

use crate::command::{Arity, Command};
use crate::commands::pruning::Mode;
use crate::commands::{container, image, network, volume};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::filter::{self, Filters};
use crate::session::{Session, print};

pub const COMMAND: Command = Command::new(
    "prune",
    "Remove unused data",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be removed, and remove nothing"),
    Flag::bool("all", "Remove all unused images, not only untagged ones").short('a'),
    Flag::list("filter", "Remove only what matches (label=…)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
    Flag::bool("volumes", "Remove anonymous volumes too"),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let (all, volumes) = (matches.bool("all"), matches.bool("volumes"));
    let filters = Filters::read(matches.list("filter"));
    if volumes && filters.has("until") {
        return Err(Failure::text(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let mut question = String::from(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n",
    );
    if volumes {
        question.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    question.push_str(match all {
        true => "  - all images without at least one container associated to them\n  - all build cache\n",
        false => "  - all dangling images\n  - unused build cache\n",
    });
    if !matches.list("filter").is_empty() {
        question.push_str("\n  Items to be pruned will be filtered with:\n");
        matches
            .list("filter")
            .iter()
            .for_each(|text| question.push_str(&format!("  - {text}\n")));
    }
    question.push_str("\nAre you sure you want to continue?");
    let mode = Mode::of(matches);
    mode.ask(matches, &question)?;
    let mut freed = 0;
    let mut show = |(text, bytes): (String, u64)| {
        freed += bytes;
        print(&text)
    };
    show(container::prune::prune(session, mode, &filters).await?)?;
    show((network::prune(session, mode, &filters).await?, 0))?;
    if volumes {
        show(volume::prune(session, mode, &filters, false).await?)?;
    }
    show(image::prune::prune_images(session, mode, all, filters.clone()).await?)?;
    match image::prune::prune_cache(session, mode, all, &filters, None).await {
        Ok(cache) => show(cache)?,
        // An engine without a build cache has nothing to remove.
        Err(failure) if matches!(failure.status, Some(404 | 501)) => {}
        Err(failure) => return Err(failure),
    }
    mode.print("", freed)?;
    Ok(0)
}
