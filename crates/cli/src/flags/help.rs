//! Help texts from the tables.

use super::{Flag, Kind};
use crate::command::{Command, Group};
use crate::commands::NESTED;

const PROGRAM: &str = "berth";

/// The full name of a command, e.g. `berth image ls`.
pub fn full_name(group: Option<&str>, command: &Command) -> String {
    match group {
        Some(group) => format!("{PROGRAM} {group} {}", command.name),
        None => format!("{PROGRAM} {}", command.name),
    }
}

pub fn usage(group: Option<&str>, command: &Command) -> String {
    let usage = command.usage;
    format!(
        "Usage:  {}{}{usage}",
        full_name(group, command),
        if usage.is_empty() { "" } else { " " }
    )
}

/// The whole help of a command.
pub fn command(group: Option<&str>, command: &Command, other_names: &[String], width: usize) -> String {
    let mut out = format!("{}\n\n{}\n", usage(group, command), command.about);
    if other_names.len() > 1 {
        out.push_str(&format!("\nAliases:\n  {}\n", other_names.join(", ")));
    }
    let flags: Vec<&Flag> = command
        .flags
        .iter()
        .flat_map(|table| table.iter())
        .filter(|flag| !flag.hidden)
        .collect();
    if !flags.is_empty() {
        out.push_str("\nOptions:\n");
        out.push_str(&options(&flags, width));
    }
    out
}

/// The lines of an option table, wrapped to the terminal.
pub fn options(flags: &[&Flag], width: usize) -> String {
    let mut sorted: Vec<&&Flag> = flags.iter().collect();
    sorted.sort_by_key(|flag| flag.long);
    let heads: Vec<String> = sorted
        .iter()
        .map(|flag| {
            let short = flag
                .short
                .map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
            let value = if flag.kind == Kind::Bool {
                String::new()
            } else {
                format!(" {}", flag.value)
            };
            format!("  {short}--{}{value}", flag.long)
        })
        .collect();
    let column = heads.iter().map(String::len).max().unwrap_or(0) + 3;
    let room = width.saturating_sub(column).max(24);
    let mut out = String::new();
    for (flag, head) in sorted.iter().zip(&heads) {
        let mut text = flag.about.to_owned();
        if !flag.default.is_empty() {
            match flag.kind {
                Kind::Text => text.push_str(&format!(" (default {:?})", flag.default)),
                _ => text.push_str(&format!(" (default {})", flag.default)),
            }
        }
        let mut start = format!("{head:<column$}");
        for line in wrap(&text, room) {
            out.push_str(start.trim_end_matches(|_| line.is_empty()));
            out.push_str(&line);
            out.push('\n');
            start = " ".repeat(column);
        }
    }
    out
}

fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = match lines.last_mut() {
            Some(line) => line,
            None => return lines,
        };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn listing(rows: &[(&str, &str)], column: usize) -> String {
    rows.iter()
        .map(|(name, about)| format!("  {name:<column$}{about}\n"))
        .collect()
}

pub fn group(group: &Group) -> String {
    let nested = NESTED.iter().filter_map(|(name, about, _)| {
        let word = name.strip_prefix(group.name)?.strip_prefix(' ')?;
        Some((word, *about))
    });
    let commands = group.commands.iter();
    let mut rows: Vec<_> = commands
        .map(|command| (command.name, command.about))
        .chain(nested)
        .collect();
    rows.sort_unstable();
    let column = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    format!(
        "Usage:  {PROGRAM} {} COMMAND\n\n{}\n\nCommands:\n{}\nRun '{PROGRAM} {} COMMAND --help' for more information on a command.\n",
        group.name,
        group.about,
        listing(&rows, column.max(12)),
        group.name
    )
}

/// The commands a newcomer needs first.
pub const COMMON: &[&str] = &[
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info",
];

pub fn top(groups: &[&Group], commands: &[&Command], globals: &[Flag], width: usize) -> String {
    let common: Vec<_> = COMMON
        .iter()
        .filter_map(|name| commands.iter().find(|command| command.name == *name))
        .map(|command| (command.name, command.about))
        .collect();
    let managed: Vec<_> = groups.iter().map(|group| (group.name, group.about)).collect();
    let mut others: Vec<_> = commands
        .iter()
        .filter(|command| !COMMON.contains(&command.name))
        .map(|command| (command.name, command.about))
        .collect();
    others.sort_unstable();
    let roles = [
        ("daemon", "Run the engine in the foreground"),
        ("runtime", "Run a bundle as an OCI runtime does"),
        ("monitor", "Watch over one container (started by the engine)"),
    ];
    let globals: Vec<&Flag> = globals.iter().collect();
    format!(
        "Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nBuild, ship and run applications in isolated boxes\n\n\
         Common Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}\nOther roles of this program:\n{}\n\
         Global Options:\n{}\nRun '{PROGRAM} COMMAND --help' for more information on a command.\n",
        listing(&common, 12),
        listing(&managed, 12),
        listing(&others, 12),
        listing(&roles, 12),
        options(&globals, width)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_tables_wrap_in_their_column() {
        let flags = [
            Flag::bool("all", "Show everything there is to see in the whole wide world").short('a'),
            Flag::text("format", "Layout").default("x"),
        ];
        let flags: Vec<&Flag> = flags.iter().collect();
        assert_eq!(
            options(&flags, 50),
            "  -a, --all             Show everything there is\n                        to see in the whole wide\n                        world\n      --format string   Layout (default \"x\")\n"
        );
    }
}
