//! Reads one command as the instruction its keyword names.

use spec::image::HealthCheck;

use super::pairs::{arguments, pairs};
use super::{CommandLine, Instruction, Mount, NAMES, Run, RunNetwork, copy, duration, from};
use crate::parse::{Command, Fault, Flag, Word, json_strings, parse_text, whitespace_words};

/// Types `command`.
pub fn instruction(command: &Command) -> Result<Instruction, Fault> {
    match command.keyword.as_str() {
        "FROM" => from::read(command).map(Instruction::From),
        "RUN" => run(command).map(Instruction::Run),
        "COPY" => copy::read(command, false).map(Instruction::Copy),
        "ADD" => copy::read(command, true).map(Instruction::Add),
        keyword => {
            let known = NAMES.contains(&keyword);
            if known && keyword != "HEALTHCHECK" {
                no_flags(command)?;
            }
            plain(command)
        }
    }
}

/// The instructions without flags, and HEALTHCHECK.
fn plain(command: &Command) -> Result<Instruction, Fault> {
    Ok(match command.keyword.as_str() {
        "ENV" => Instruction::Env(pairs(command)?),
        "LABEL" => Instruction::Label(pairs(command)?),
        "ARG" => Instruction::Arg(arguments(command)?),
        "EXPOSE" => Instruction::Expose(texts(&whitespace_words(&needed(command)?, command.rest_offset))),
        "VOLUME" => Instruction::Volume(volume(command)?),
        "USER" => Instruction::User(single(command)?),
        "WORKDIR" => Instruction::Workdir(single(command)?),
        "STOPSIGNAL" => Instruction::Stopsignal(single(command)?),
        "MAINTAINER" => Instruction::Maintainer(single(command)?),
        "CMD" => Instruction::Cmd(command_line(&command.rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command_line(&command.rest)),
        "SHELL" => Instruction::Shell(shell(command)?),
        "ONBUILD" => Instruction::Onbuild(onbuild(command)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(command)?),
        _ => {
            let fault = command.fault(format!("unknown instruction: {}", command.written));
            return Err(match nearest(&command.keyword, &NAMES) {
                Some(name) => fault.help(format!("did you mean {name}?")),
                None => fault.help(format!("the instructions are {}", NAMES.join(", "))),
            });
        }
    })
}

/// Reads a command line in whichever form it is written.
pub fn command_line(text: &str) -> CommandLine {
    match json_strings(text) {
        Some(list) => CommandLine::Exec(list),
        None => CommandLine::Shell(text.trim().to_owned()),
    }
}

fn needed(command: &Command) -> Result<String, Fault> {
    if command.rest.is_empty() {
        return Err(command.fault(format!("{} requires at least one argument", command.keyword)));
    }
    Ok(command.rest.clone())
}

/// The rest of the line as one argument.
fn single(command: &Command) -> Result<String, Fault> {
    if command.rest.is_empty() {
        return Err(command.fault(format!("{} requires exactly one argument", command.keyword)));
    }
    Ok(command.rest.clone())
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}

fn volume(command: &Command) -> Result<Vec<String>, Fault> {
    let text = needed(command)?;
    let list = json_strings(&text).unwrap_or_else(|| texts(&whitespace_words(&text, 0)));
    if list.is_empty() {
        return Err(command.rest_fault("VOLUME requires at least one argument"));
    }
    if list.iter().any(|path| path.trim().is_empty()) {
        return Err(command.rest_fault("VOLUME specified can not be an empty string"));
    }
    Ok(list)
}

fn shell(command: &Command) -> Result<Vec<String>, Fault> {
    match json_strings(&command.rest) {
        Some(list) if list.is_empty() => Err(command.rest_fault("SHELL requires at least one argument")),
        Some(list) => Ok(list),
        None => Err(command
            .rest_fault(format!(
                "SHELL requires the arguments to be in JSON form: {}",
                command.rest
            ))
            .help("write it as SHELL [\"/bin/bash\", \"-c\"]")),
    }
}

/// The flag's value; a flag that needs one and has none is a fault.
pub fn value_of(flag: &Flag) -> Result<&str, Fault> {
    flag.value.as_deref().ok_or_else(|| Fault {
        message: format!("missing a value on flag: --{}", flag.name),
        offset: flag.offset,
        width: flag.width,
        help: None,
    })
}

/// The flag as a yes or no; without a value it says yes.
pub fn switch(flag: &Flag) -> Result<bool, Fault> {
    match flag.value.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(flag_fault(
            flag,
            format!("expecting boolean value for flag {}, not: {other}", flag.name),
        )),
    }
}

/// A fault at a flag.
pub fn flag_fault(flag: &Flag, message: impl Into<String>) -> Fault {
    Fault {
        message: message.into(),
        offset: flag.offset,
        width: flag.width,
        help: None,
    }
}

/// The fault of a flag that the instruction does not have.
pub fn unknown_flag(flag: &Flag, known: &[&str]) -> Fault {
    let fault = flag_fault(flag, format!("unknown flag: --{}", flag.name));
    match nearest(&flag.name, known) {
        Some(name) => fault.help(format!("did you mean --{name}?")),
        None if known.is_empty() => fault.help("this instruction takes no flags"),
        None => fault.help(format!("known flags are --{}", known.join(", --"))),
    }
}

/// Refuses flags that may stand only once.
pub fn only_once(flags: &[Flag], repeatable: &[&str]) -> Result<(), Fault> {
    for (index, flag) in flags.iter().enumerate() {
        let earlier = flags.get(..index).unwrap_or_default();
        if !repeatable.contains(&flag.name.as_str()) && earlier.iter().any(|other| other.name == flag.name) {
            return Err(flag_fault(
                flag,
                format!("duplicate flag specified: --{}", flag.name),
            ));
        }
    }
    Ok(())
}

fn no_flags(command: &Command) -> Result<(), Fault> {
    match command.flags.first() {
        Some(flag) => Err(unknown_flag(flag, &[])),
        None => Ok(()),
    }
}

fn run(command: &Command) -> Result<Run, Fault> {
    const KNOWN: [&str; 4] = ["mount", "network", "security", "device"];
    only_once(&command.flags, &["mount", "device"])?;
    let (mut mounts, mut network, mut insecure) = (Vec::new(), None, false);
    for flag in &command.flags {
        match flag.name.as_str() {
            "mount" => mounts.push(Mount::read(flag)?),
            "network" => {
                network = Some(match value_of(flag)? {
                    "default" => RunNetwork::Default,
                    "none" => RunNetwork::None,
                    "host" => RunNetwork::Host,
                    other => {
                        let fault = flag_fault(flag, format!("invalid network mode \"{other}\""));
                        return Err(fault.help("use default, none or host"));
                    }
                })
            }
            "security" => match value_of(flag)? {
                "sandbox" => insecure = false,
                "insecure" => insecure = true,
                other => {
                    let fault = flag_fault(flag, format!("security mode \"{other}\" is not valid"));
                    return Err(fault.help("use sandbox or insecure"));
                }
            },
            "device" => return Err(flag_fault(flag, "devices in RUN are not offered")),
            _ => return Err(unknown_flag(flag, &KNOWN)),
        }
    }
    let line = command_line(&command.rest);
    if line.is_empty() {
        return Err(command.fault("RUN requires at least one argument"));
    }
    Ok(Run {
        command: line,
        heredocs: command.heredocs.clone(),
        mounts,
        network,
        insecure,
    })
}

fn onbuild(command: &Command) -> Result<String, Fault> {
    let text = needed(command)?;
    let first = text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    match first.as_str() {
        "ONBUILD" => {
            return Err(command.rest_fault("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        }
        "FROM" | "MAINTAINER" => {
            return Err(command.rest_fault(format!("{first} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    let mut trigger = text;
    for heredoc in &command.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.content);
        trigger.push_str(&heredoc.name);
    }
    // The trigger is read now as well, so that a mistake shows where it was made and not in someone else's
    // build.
    parse_text(&trigger, command.escape, command.logical.first_line())
        .and_then(|inner| instruction(&inner))
        .map_err(|fault| Fault {
            message: fault.message,
            offset: command.rest_offset + fault.offset,
            width: fault.width,
            help: fault.help,
        })?;
    Ok(trigger)
}

fn healthcheck(command: &Command) -> Result<HealthCheck, Fault> {
    const KNOWN: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];
    only_once(&command.flags, &[])?;
    let text = needed(command)?;
    let kind = text.split_whitespace().next().unwrap_or_default();
    let rest = text.get(kind.len()..).unwrap_or_default().trim();
    let mut check = HealthCheck::default();
    match kind.to_ascii_uppercase().as_str() {
        "NONE" => {
            if !rest.is_empty() {
                return Err(command.rest_fault("HEALTHCHECK NONE takes no arguments"));
            }
            if let Some(flag) = command.flags.first() {
                return Err(unknown_flag(flag, &[]));
            }
            check.test = vec!["NONE".to_owned()];
        }
        "CMD" => {
            check.test = match command_line(rest) {
                line if line.is_empty() => {
                    return Err(command.rest_fault("Missing command after HEALTHCHECK CMD"));
                }
                CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
                CommandLine::Exec(list) => [vec!["CMD".to_owned()], list].concat(),
            };
        }
        other => {
            return Err(command.rest_fault(format!("Unknown type \"{other}\" in HEALTHCHECK (try CMD)")));
        }
    }
    for flag in &command.flags {
        match flag.name.as_str() {
            "interval" => check.interval = interval(flag)?,
            "timeout" => check.timeout = interval(flag)?,
            "start-period" => check.start_period = interval(flag)?,
            "start-interval" => check.start_interval = interval(flag)?,
            "retries" => {
                let text = value_of(flag)?;
                check.retries = match text.parse::<i32>() {
                    Ok(number) if number >= 0 => number.into(),
                    Ok(number) => {
                        return Err(flag_fault(
                            flag,
                            format!("--retries cannot be negative ({number})"),
                        ));
                    }
                    Err(_) => return Err(flag_fault(flag, format!("--retries is not a number: {text}"))),
                }
            }
            _ => return Err(unknown_flag(flag, &KNOWN)),
        }
    }
    Ok(check)
}

/// A duration in nanoseconds; 0 stands for the default, and nothing between 0 and a millisecond is taken.
fn interval(flag: &Flag) -> Result<i64, Fault> {
    let text = value_of(flag)?;
    let Some(nanoseconds) = duration::parse_duration(text) else {
        let fault = flag_fault(flag, format!("time: invalid duration \"{text}\""));
        return Err(fault.help("write it as 30s, 1m30s or 500ms"));
    };
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return Err(flag_fault(
            flag,
            format!("Interval \"{}\" cannot be less than 1ms", flag.name),
        ));
    }
    Ok(nanoseconds)
}

/// The known name nearest to `word`, if it is near enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    if word.len() > 32 {
        return None;
    }
    let best = known
        .iter()
        .min_by_key(|name| distance(&word, &name.to_ascii_lowercase()))?;
    let far = distance(&word, &best.to_ascii_lowercase());
    (far <= 2 && far < best.len().div_ceil(2)).then_some(*best)
}

/// How many characters have to be added, dropped, changed or swapped with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut cost = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = cost;
        }
    }
    rows[a.len()][b.len()]
}
