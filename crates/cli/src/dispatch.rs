//! From the argument list to a command and its exit code.

use crate::command::{Command, Group};
use crate::commands;
use crate::connect::endpoint::Globals;
use crate::connect::{config, launch};
use crate::failure::Failure;
use crate::flags::{Flag, Matches, help, parse};
use crate::session::Session;
use crate::terminal;
use std::ffi::OsString;
use std::path::PathBuf;

const PROGRAM: &str = "berth";

const GLOBALS: &[Flag] = &[
    Flag::text("config", "Directory of the client's configuration"),
    Flag::text("context", "Name of the context to use").short('c'),
    Flag::bool("debug", "Show more for diagnosis").short('D'),
    Flag::list("host", "Daemon socket to connect to").short('H'),
    Flag::text(
        "log-level",
        "Level of messages: debug, info, warn, error or fatal",
    )
    .short('l')
    .default("info"),
    Flag::bool("tls", "Use TLS; implied by --tlsverify"),
    Flag::text("tlscacert", "Trust certificates signed by this authority only"),
    Flag::text("tlscert", "Certificate of the client"),
    Flag::text("tlskey", "Key of the client"),
    Flag::bool("tlsverify", "Use TLS and verify the daemon"),
    Flag::bool("version", "Print the version and quit").short('v'),
];

/// See [`crate::main`].
pub fn main(args: Vec<OsString>) -> i32 {
    let mut words = Vec::with_capacity(args.len());
    for arg in args {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(bad) => {
                eprintln!("{PROGRAM}: the argument {bad:?} is not UTF-8");
                return 125;
            }
        }
    }
    if words.first().map(String::as_str) == Some(launch::COMMAND) {
        return launch::become_daemon();
    }
    match run(&words) {
        Ok(code) => code,
        Err(failure) => {
            report(&failure);
            failure.code
        }
    }
}

fn report(failure: &Failure) {
    if !failure.message.is_empty() {
        eprintln!("{}", failure.message);
    }
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
}

/// A command line that no command understands.
fn misuse(message: String, usage: &str, full: &str, code: i32) -> Failure {
    let usage = if usage.is_empty() {
        String::new()
    } else {
        format!("{usage}\n\n")
    };
    Failure::text(format!(
        "{message}\n\n{usage}Run '{full} --help' for more information"
    ))
    .with_code(code)
}

fn run(words: &[String]) -> Result<i32, Failure> {
    let top = |message: String, code: i32| {
        misuse(
            message,
            &format!("Usage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]"),
            PROGRAM,
            code,
        )
    };
    let globals = parse::parse(&[GLOBALS], words, false).map_err(|message| top(message, 125))?;
    if globals.bool("version") {
        println!("Berth version {}", env!("CARGO_PKG_VERSION"));
        return Ok(0);
    }
    let rest = match globals.args.as_slice() {
        [] => return Ok(show_top()),
        [word, target @ ..] if word == "help" => return show_help(target),
        rest => rest,
    };
    if globals.help {
        return show_help(rest);
    }
    let (group, command, arguments) = find(rest)?;
    let Some(command) = command else {
        if let Some(group) = group {
            print!("{}", help::group(&group));
        }
        return Ok(0);
    };
    let group_name = group.as_ref().map(|group| group.name);
    let full = help::full_name(group_name, command);
    let usage = help::usage(group_name, command);
    let matches = parse::parse(command.flags, arguments, command.interspersed)
        .map_err(|message| misuse(message, &usage, &full, 125))?;
    if matches.help {
        print!(
            "{}",
            help::command(group_name, command, &other_names(command), terminal::width())
        );
        return Ok(0);
    }
    command
        .arity
        .check(matches.args.len())
        .map_err(|wants| misuse(format!("{PROGRAM}: '{full}' {wants}"), &usage, &full, 1))?;
    let session = session(&globals);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::text(format!("cannot start the client's runtime: {error}")))?;
    let outcome = runtime.block_on((command.run)(&session, &matches));
    // A thread may still wait for stdin; the process's end ends it.
    runtime.shutdown_background();
    outcome.map_err(|failure| {
        if !command.refuses || failure.message.is_empty() || failure.code == 1 {
            return failure;
        }
        let message = format!(
            "{PROGRAM}: {}\n\nRun '{full} --help' for more information",
            failure.message
        );
        Failure { message, ..failure }
    })
}

fn session(globals: &Matches) -> Session {
    let path = |flag: &str| globals.text(flag).map(PathBuf::from);
    let settings = Globals {
        config: path("config").unwrap_or_else(config::directory),
        context: globals.text("context").map(str::to_owned),
        hosts: globals.list("host").to_vec(),
        tls: globals.bool("tls"),
        tls_verify: globals.bool("tlsverify"),
        ca: path("tlscacert"),
        cert: path("tlscert"),
        key: path("tlskey"),
    };
    Session::new(settings, globals.bool("debug"))
}

/// The command that words name: its group, itself (none for a bare group) and the arguments left.
fn find(words: &[String]) -> Result<(Option<Group>, Option<&'static Command>, &[String]), Failure> {
    let Some((first, rest)) = words.split_first() else {
        return Ok((None, None, words));
    };
    if let Some(command) = commands::alone().find(|command| command.answers_to(first)) {
        return Ok((None, Some(command), rest));
    }
    let Some(group) = commands::group(first) else {
        let near = nearest(first, commands::alone().map(|command| command.name));
        let failure = Failure::text(format!(
            "{PROGRAM}: unknown command: {PROGRAM} {first}\n\nRun '{PROGRAM} --help' for more information"
        ));
        return Err(match near {
            Some(near) => failure.hint(format!("did you mean '{PROGRAM} {near}'?")),
            None => failure,
        });
    };
    let nested = rest
        .split_first()
        .and_then(|(second, rest)| Some((commands::group(&format!("{first} {second}"))?, rest)));
    let (group, rest) = nested.unwrap_or((group, rest));
    let Some((second, rest)) = rest
        .split_first()
        .filter(|(word, _)| !matches!(word.as_str(), "--help" | "-h"))
    else {
        return Ok((Some(group), None, rest));
    };
    match group
        .commands
        .iter()
        .find(|command| command.answers_to(second))
        .copied()
    {
        Some(command) => Ok((Some(group), Some(command), rest)),
        None => {
            let full = format!("{PROGRAM} {}", group.name);
            let message = format!("{PROGRAM}: unknown command: {full} {second}");
            Err(misuse(message, &format!("Usage:  {full}"), &full, 1))
        }
    }
}

/// A known word that differs in at most two letters.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, c) in left.chars().enumerate() {
        let mut next = vec![index + 1];
        for (column, other) in right.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let replace = at(&row, column) + usize::from(c != *other);
            next.push(replace.min(at(&row, column + 1) + 1).min(at(&next, column) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn show_top() -> i32 {
    let groups: Vec<Group> = commands::GROUPS
        .iter()
        .filter_map(|(name, _, _)| commands::group(name))
        .collect();
    let groups: Vec<&Group> = groups.iter().collect();
    let alone: Vec<&Command> = commands::alone().collect();
    print!("{}", help::top(&groups, &alone, GLOBALS, terminal::width()));
    0
}

fn show_help(words: &[String]) -> Result<i32, Failure> {
    if words.is_empty() {
        return Ok(show_top());
    }
    let (group, command, _) = find(words)?;
    match (&group, command) {
        (group, Some(command)) => {
            let name = group.as_ref().map(|group| group.name);
            print!(
                "{}",
                help::command(name, command, &other_names(command), terminal::width())
            );
        }
        (Some(group), None) => print!("{}", help::group(group)),
        (None, None) => return Ok(show_top()),
    }
    Ok(0)
}

/// Every way to call a command, the long one first.
fn other_names(command: &Command) -> Vec<String> {
    let mut names = Vec::new();
    let same = |other: &Command| other.about == command.about && other.usage == command.usage;
    for (name, _, _) in commands::GROUPS {
        for other in commands::group(name)
            .iter()
            .flat_map(|group| &group.commands)
            .filter(|other| same(other))
        {
            names.push(format!("{PROGRAM} {name} {}", other.name));
            names.extend(
                other
                    .aliases
                    .iter()
                    .map(|alias| format!("{PROGRAM} {name} {alias}")),
            );
        }
    }
    names.extend(
        commands::alone()
            .filter(|other| same(other))
            .map(|other| format!("{PROGRAM} {}", other.name)),
    );
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_are_found_by_every_name() {
        for text in [
            "ps",
            "container ls",
            "container ps",
            "images",
            "image list",
            "rmi x",
            "volume rm x",
            "system df",
        ] {
            assert!(
                find(&words(text)).is_ok_and(|(_, command, _)| command.is_some()),
                "{text}"
            );
        }
        let error = |text: &str| run(&words(text)).unwrap_err();
        let unknown = error("frob");
        assert_eq!(
            unknown.message,
            "berth: unknown command: berth frob\n\nRun 'berth --help' for more information"
        );
        assert_eq!(unknown.code, 1);
        assert_eq!(error("runn").hint.as_deref(), Some("did you mean 'berth run'?"));
        let flag = error("run --foo");
        assert_eq!(flag.code, 125);
        assert_eq!(
            flag.message,
            "unknown flag: --foo\n\nUsage:  berth run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'berth run --help' for more information"
        );
        assert!(
            error("rename a")
                .message
                .starts_with("berth: 'berth rename' requires 2 arguments\n\nUsage:")
        );
        assert!(
            error("ps extra")
                .message
                .starts_with("berth: 'berth ps' accepts no arguments")
        );
        assert!(
            error("run")
                .message
                .starts_with("berth: 'berth run' requires at least 1 argument")
        );
    }

    #[test]
    fn every_command_is_described() {
        for (name, _, _) in commands::GROUPS.iter().chain(commands::NESTED) {
            for command in commands::group(name)
                .map(|group| group.commands)
                .unwrap_or_default()
            {
                assert!(!help::command(Some(name), command, &other_names(command), 80).is_empty());
                let mut seen = std::collections::HashSet::new();
                for flag in command.flags.iter().flat_map(|table| table.iter()) {
                    assert!(
                        seen.insert(flag.long),
                        "{name} {} --{} twice",
                        command.name,
                        flag.long
                    );
                    if let Some(short) = flag.short {
                        assert!(
                            seen.insert(Box::leak(format!("-{short}").into_boxed_str())),
                            "-{short} twice"
                        );
                    }
                }
            }
        }
    }
}
