//! What all prune commands share: asking first, and saying what went or would go.

use crate::failure::Failure;
use crate::flags::Matches;
use crate::format::size;
use crate::session::{confirm, print};

/// Whether things are removed, or only named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub dry_run: bool,
}

impl Mode {
    pub fn of(matches: &Matches) -> Mode {
        Mode {
            dry_run: matches.bool("dry-run"),
        }
    }

    /// Asks, unless told not to or nothing is going to be removed.
    pub fn ask(self, matches: &Matches, question: &str) -> Result<(), Failure> {
        if self.dry_run || matches.bool("force") || confirm(question)? {
            return Ok(());
        }
        Err(Failure::cancelled())
    }

    /// The heading of a list, and the list.
    pub fn list(self, what: &str, items: &[String]) -> String {
        if items.is_empty() {
            return String::new();
        }
        let heading = if self.dry_run { "Would delete" } else { "Deleted" };
        let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
        format!("{heading} {what}:\n{lines}\n")
    }

    /// The lists, and what they free.
    pub fn print(self, text: &str, freed: u64) -> Result<(), Failure> {
        let space = if self.dry_run { "reclaimable" } else { "reclaimed" };
        print(&format!(
            "{text}Total {space} space: {}\n",
            size::decimal(freed as f64)
        ))
    }
}
