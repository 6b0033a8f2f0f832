//! Instructions that change nothing but the image's configuration, and their lines of history.
//!
//! The same rules serve `commit --change` and `import --change` (see [`crate::changes`]).

use spec::image::{ContainerSettings, Empty, HealthCheck};

use crate::error::BuildError;
use crate::expand::{ExpandError, Variables, expand_word, expand_words};
use crate::instruction::{CommandLine, Instruction, Pair, Statement, format_duration};

/// The shell of shell forms where SHELL says nothing.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The shell of a stage.
pub fn shell(settings: &ContainerSettings) -> Vec<String> {
    match &settings.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => DEFAULT_SHELL.iter().map(|part| (*part).to_owned()).collect(),
    }
}

/// The value of an environment variable.
pub fn env_value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter()
        .rev()
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// Sets an environment variable, at its old place where it has one.
pub fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let old = env.iter_mut().find(|old| old.split('=').next() == Some(name));
    match old {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// A path below the working directory, cleaned; `/` stays.
pub fn below(working_dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{working_dir}/{path}")
    };
    format!("/{}", crate::pattern::clean(&whole))
}

/// What a configuration instruction did.
pub struct Change {
    /// The line of history.
    pub history: String,
    /// MAINTAINER's.
    pub author: Option<String>,
}

fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn pairs_text(keyword: &str, pairs: &[Pair]) -> String {
    pairs.iter().fold(keyword.to_owned(), |text, pair| {
        format!("{text} {}={}", pair.key, pair.value)
    })
}

/// Applies `statement` to `settings`; `None` if it is not one that only changes the configuration. `cmd_set`
/// says whether a CMD stood in this stage, which an ENTRYPOINT leaves alone.
pub fn apply(
    settings: &mut ContainerSettings,
    cmd_set: &mut bool,
    statement: &Statement,
    variables: &dyn Variables,
) -> Result<Option<Change>, BuildError> {
    let escape = statement.escape;
    let word = |text: &str| expand_word(text, escape, variables).map_err(|error| fault(statement, &error));
    let words = |list: &[String]| -> Result<Vec<String>, BuildError> {
        let mut all = Vec::new();
        for text in list {
            all.extend(expand_words(text, escape, variables).map_err(|error| fault(statement, &error))?);
        }
        Ok(all)
    };
    let mut author = None;
    let history = match &statement.instruction {
        Instruction::Env(pairs) => {
            let pairs = expand_pairs(pairs, &word)?;
            for pair in &pairs {
                set_env(&mut settings.env, &pair.key, &pair.value);
            }
            pairs_text("ENV", &pairs)
        }
        Instruction::Label(pairs) => {
            let pairs = expand_pairs(pairs, &word)?;
            for pair in &pairs {
                settings.labels.insert(pair.key.clone(), pair.value.clone());
            }
            pairs_text("LABEL", &pairs)
        }
        Instruction::Expose(list) => {
            let mut ports = Vec::new();
            for text in words(list)? {
                ports.extend(self::ports(&text).map_err(|message| mistake(statement, message))?);
            }
            for port in &ports {
                settings.exposed_ports.insert(port.clone(), Empty {});
            }
            format!("EXPOSE [{}]", ports.join(" "))
        }
        Instruction::Volume(list) => {
            let mut volumes = Vec::new();
            for text in list {
                let path = word(text)?;
                if path.trim().is_empty() {
                    return Err(mistake(
                        statement,
                        "VOLUME specified can not be an empty string".to_owned(),
                    ));
                }
                settings.volumes.insert(path.clone(), Empty {});
                volumes.push(path);
            }
            format!("VOLUME [{}]", volumes.join(" "))
        }
        Instruction::User(text) => {
            settings.user = word(text)?;
            format!("USER {}", settings.user)
        }
        Instruction::Workdir(text) => {
            settings.working_dir = below(&settings.working_dir, &word(text)?);
            format!("WORKDIR {}", settings.working_dir)
        }
        Instruction::Cmd(line) => {
            *cmd_set = true;
            let args = line.arguments(&shell(settings));
            let text = format!("CMD {}", quoted(&args));
            settings.cmd = Some(if line.is_empty() { Vec::new() } else { args });
            text
        }
        Instruction::Entrypoint(line) => {
            let args = match line {
                CommandLine::Exec(list) => list.clone(),
                CommandLine::Shell(text) if text.is_empty() => Vec::new(),
                CommandLine::Shell(_) => line.arguments(&shell(settings)),
            };
            let text = format!("ENTRYPOINT {}", quoted(&args));
            settings.entrypoint = (!args.is_empty()).then_some(args);
            // The base image's arguments were meant for its own entry point.
            if !*cmd_set {
                settings.cmd = None;
            }
            text
        }
        Instruction::Shell(list) => {
            settings.shell = Some(list.clone());
            format!("SHELL [{}]", list.join(" "))
        }
        Instruction::Onbuild(trigger) => {
            settings.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Instruction::Healthcheck(check) => {
            settings.healthcheck = Some(check.clone());
            health_text(check)
        }
        Instruction::Stopsignal(text) => {
            let signal = word(text)?;
            if !is_signal(&signal) {
                return Err(mistake(statement, format!("Invalid signal: {signal}")));
            }
            settings.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Maintainer(text) => {
            author = Some(text.clone());
            format!("MAINTAINER {text}")
        }
        _ => return Ok(None),
    };
    Ok(Some(Change { history, author }))
}

fn expand_pairs(
    pairs: &[Pair],
    word: &dyn Fn(&str) -> Result<String, BuildError>,
) -> Result<Vec<Pair>, BuildError> {
    pairs
        .iter()
        .map(|pair| {
            Ok(Pair {
                key: word(&pair.key)?,
                value: word(&pair.value)?,
            })
        })
        .collect()
}

/// A failed expansion as an error at its statement.
pub fn fault(statement: &Statement, error: &ExpandError) -> BuildError {
    let text = statement.code.lines().next().unwrap_or_default();
    mistake(statement, format!("failed to process \"{text}\": {error}"))
}

/// A mistake that shows once values are known.
pub fn mistake(statement: &Statement, message: String) -> BuildError {
    BuildError::Dockerfile(crate::graph::mistake(statement, message, None))
}

/// The ports of one EXPOSE word: `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = |why: &str| format!("invalid containerPort: {text}: {why}");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    // An address or a port of the host in front says nothing in an image.
    let numbers = numbers.rsplit(':').next().unwrap_or(numbers);
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (low, high) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| wrong("it should be a number from 0 to 65535"))
    };
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(wrong("the range goes backwards"));
    }
    Ok((low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

/// Whether a text names a signal: a number, or a name with or without SIG.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 34] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |start: &str, sign: char| {
        let rest = name.strip_prefix(start)?;
        let number: u32 = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix(sign)?.parse().ok()?
        };
        (number <= 15).then_some(())
    };
    NAMES.contains(&name) || realtime("RTMIN", '+').is_some() || realtime("RTMAX", '-').is_some()
}

fn health_text(check: &HealthCheck) -> String {
    let test = quoted(&check.test);
    let times = [
        check.interval,
        check.timeout,
        check.start_period,
        check.start_interval,
    ]
    .map(|time| format!("{:?}", format_duration(time)));
    format!(
        "HEALTHCHECK &{{{test} {} '\\x{:02x}'}}",
        times.join(" "),
        check.retries
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::read_all;
    use crate::parse::parse;

    fn applied(text: &str) -> (ContainerSettings, Vec<String>) {
        let file = parse("Dockerfile", text.as_bytes()).unwrap();
        let (mut settings, mut history, mut cmd_set) = (ContainerSettings::default(), Vec::new(), false);
        settings.cmd = Some(vec!["base".into()]);
        for statement in read_all(&file).unwrap() {
            let env = settings.env.clone();
            let variables = move |name: &str| env_value(&env, name).map(str::to_owned);
            match apply(&mut settings, &mut cmd_set, &statement, &variables) {
                Ok(Some(change)) => history.push(change.history),
                Ok(None) => panic!("not a setting: {text}"),
                Err(error) => history.push(error.to_string()),
            }
        }
        (settings, history)
    }

    #[test]
    fn configuration_and_history() {
        let (settings, history) = applied(
            "ENV A=1 B=$A\nENV B=\"$A 2\"\nLABEL x=$B\nEXPOSE 80 81-82/udp\nVOLUME /v [\nUSER $A\nWORKDIR /a/../b\n\
             WORKDIR c\nCMD echo hi\nENTRYPOINT [\"x\"]\nSTOPSIGNAL sigint\nONBUILD RUN y\nSHELL [\"/bin/ash\",\"-c\"]\n\
             CMD z\n",
        );
        assert_eq!(settings.env, ["A=1", "B=1 2"]);
        assert_eq!(settings.labels.get("x").map(String::as_str), Some("1 2"));
        assert_eq!(
            settings.exposed_ports.keys().collect::<Vec<_>>(),
            ["80/tcp", "81/udp", "82/udp"]
        );
        assert_eq!(
            (settings.user.as_str(), settings.working_dir.as_str()),
            ("1", "/b/c")
        );
        assert_eq!(settings.cmd.unwrap(), ["/bin/ash", "-c", "z"]);
        assert_eq!(settings.on_build, ["RUN y"]);
        assert_eq!(history[0], "ENV A=1 B=");
        assert_eq!(history[3], "EXPOSE [80/tcp 81/udp 82/udp]");
        assert_eq!(history[8], "CMD [\"/bin/sh\" \"-c\" \"echo hi\"]");
        assert_eq!(history[9], "ENTRYPOINT [\"x\"]");
    }

    #[test]
    fn an_entrypoint_drops_the_base_images_arguments() {
        assert_eq!(applied("ENTRYPOINT [\"x\"]\n").0.cmd, None);
        assert_eq!(applied("CMD [\"y\"]\nENTRYPOINT [\"x\"]\n").0.cmd.unwrap(), ["y"]);
    }

    #[test]
    fn mistakes_that_show_when_values_are_known() {
        for (line, message) in [
            ("EXPOSE 80/xyz", "invalid proto: xyz"),
            ("EXPOSE 99999", "invalid containerPort: 99999"),
            ("STOPSIGNAL nonsense", "Invalid signal: nonsense"),
            (
                "ENV A=${B",
                "failed to process \"ENV A=${B\": syntax error: missing '}'",
            ),
            ("USER ${X:?who}", "X: who"),
            ("VOLUME $X", "VOLUME specified can not be an empty string"),
        ] {
            let (_, history) = applied(line);
            assert!(history[0].contains(message), "{line}: {}", history[0]);
        }
    }
}
