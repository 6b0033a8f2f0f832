//! Reads an argument list against tables of flags.

use super::{Flag, Kind};
use crate::format::{duration, size};
use std::collections::HashMap;

/// What was given.
#[derive(Debug, Default)]
pub struct Matches {
    values: HashMap<&'static str, Vec<String>>,
    /// Positional arguments.
    pub args: Vec<String>,
    /// `--help` (or `-h` where that is no flag of the command).
    pub help: bool,
    defaults: HashMap<&'static str, &'static str>,
}

impl Matches {
    pub fn changed(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    pub fn bool(&self, flag: &str) -> bool {
        match self.values.get(flag).and_then(|values| values.last()) {
            Some(value) => parse_bool(value).unwrap_or(false),
            None => self.defaults.get(flag).is_some_and(|default| *default == "true"),
        }
    }

    /// The last value given.
    pub fn text(&self, flag: &str) -> Option<&str> {
        self.values
            .get(flag)
            .and_then(|values| values.last())
            .map(String::as_str)
    }

    /// The last value, or the flag's default, or nothing.
    pub fn text_or_default(&self, flag: &str) -> &str {
        self.text(flag)
            .or_else(|| self.defaults.get(flag).copied())
            .unwrap_or_default()
    }

    pub fn list(&self, flag: &str) -> &[String] {
        self.values.get(flag).map_or(&[], Vec::as_slice)
    }

    pub fn int(&self, flag: &str) -> Option<i64> {
        self.text(flag).and_then(parse_int)
    }

    /// Bytes, -1 where that is the value.
    pub fn bytes(&self, flag: &str) -> Option<i64> {
        self.text(flag).map(|text| {
            if text == "-1" {
                -1
            } else {
                size::parse(text).unwrap_or(0)
            }
        })
    }

    /// Nanoseconds.
    pub fn duration(&self, flag: &str) -> Option<i64> {
        self.text(flag).and_then(|text| duration::parse(text).ok())
    }

    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }
}

/// Go's strconv.ParseBool.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's integers with base 0: decimal, 0x, 0o, 0b, or octal with a leading zero.
fn parse_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, lower.get(2..)?),
        Some("0o") => (8, lower.get(2..)?),
        Some("0b") => (2, lower.get(2..)?),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    if body.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(body, radix).ok().map(|value| sign * value)
}

/// Reads `arguments`. With `interspersed` flags may follow positional arguments; without, the first one ends them.
pub fn parse(
    tables: &[&'static [Flag]],
    arguments: &[String],
    interspersed: bool,
) -> Result<Matches, String> {
    let mut matches = Matches::default();
    for flag in tables
        .iter()
        .flat_map(|table| table.iter())
        .filter(|flag| !flag.default.is_empty())
    {
        matches.defaults.insert(flag.long, flag.default);
    }
    let long = |name: &str| {
        tables
            .iter()
            .flat_map(|table| table.iter())
            .find(|flag| flag.long == name)
    };
    let short = |name: char| {
        tables
            .iter()
            .flat_map(|table| table.iter())
            .find(|flag| flag.short == Some(name))
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            matches.args.extend(rest.cloned());
            break;
        }
        if let Some(body) = argument.strip_prefix("--") {
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            if name.is_empty() || name.starts_with('-') {
                return Err(format!("bad flag syntax: {argument}"));
            }
            let Some(flag) = long(name) else {
                if name == "help" {
                    matches.help = true;
                    continue;
                }
                return Err(format!("unknown flag: --{name}"));
            };
            let value = match (inline, flag.kind) {
                (Some(value), _) => value.to_owned(),
                (None, Kind::Bool) => "true".into(),
                (None, _) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("flag needs an argument: --{name}"))?,
            };
            store(&mut matches, flag, value)?;
            continue;
        }
        if let Some(cluster) = argument.strip_prefix('-').filter(|cluster| !cluster.is_empty()) {
            let mut remaining = cluster;
            while let Some(letter) = remaining.chars().next() {
                let tail = remaining.get(letter.len_utf8()..).unwrap_or_default();
                let Some(flag) = short(letter) else {
                    if letter == 'h' {
                        matches.help = true;
                        remaining = tail;
                        continue;
                    }
                    return Err(format!("unknown shorthand flag: '{letter}' in -{remaining}"));
                };
                let (value, next) = if let Some(value) = tail.strip_prefix('=') {
                    (value.to_owned(), "")
                } else if flag.kind == Kind::Bool {
                    ("true".to_owned(), tail)
                } else if !tail.is_empty() {
                    (tail.to_owned(), "")
                } else {
                    let value = rest.next().cloned();
                    (
                        value.ok_or_else(|| format!("flag needs an argument: '{letter}' in -{remaining}"))?,
                        "",
                    )
                };
                store(&mut matches, flag, value)?;
                remaining = next;
            }
            continue;
        }
        matches.args.push(argument.clone());
        if !interspersed {
            matches.args.extend(rest.cloned());
            break;
        }
    }
    Ok(matches)
}

fn store(matches: &mut Matches, flag: &Flag, value: String) -> Result<(), String> {
    let number = |function: &str, ok: bool| {
        if ok {
            return Ok(());
        }
        let digits = value.trim_start_matches(['-', '+']);
        let range = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let reason = if range {
            "value out of range"
        } else {
            "invalid syntax"
        };
        Err(format!("strconv.{function}: parsing {value:?}: {reason}"))
    };
    let checked = match flag.kind {
        Kind::Bool => match parse_bool(&value) {
            Some(_) => Ok(()),
            None => Err(format!("strconv.ParseBool: parsing {value:?}: invalid syntax")),
        },
        Kind::Int => number("ParseInt", parse_int(&value).is_some()),
        Kind::Uint16 => number("ParseUint", value.parse::<u16>().is_ok()),
        Kind::Duration => duration::parse(&value).map(|_| ()),
        Kind::Bytes if value == "-1" && flag.long == "memory-swap" => Ok(()),
        Kind::Bytes => size::parse(&value).map(|_| ()),
        Kind::Cpus => crate::grammar::limits::nano_cpus(&value).map(|_| ()),
        Kind::Text | Kind::List => Ok(()),
    };
    checked
        .and_then(|()| flag.check.map_or(Ok(()), |check| check(&value)))
        .map_err(|reason| {
            format!(
                "invalid argument {value:?} for \"{}\" flag: {reason}",
                flag.name()
            )
        })?;
    let slot = matches.values.entry(flag.long).or_default();
    if flag.kind != Kind::List {
        slot.clear();
    }
    slot.push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::bool("detach", "").short('d'),
        Flag::bool("interactive", "").short('i'),
        Flag::bool("tty", "").short('t'),
        Flag::bool("sig-proxy", "").default("true"),
        Flag::list("publish", "").short('p'),
        Flag::text("name", ""),
        Flag::int("retries", ""),
        Flag::bytes("memory", "").short('m'),
    ];

    fn read(words: &[&str], interspersed: bool) -> Result<Matches, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&[FLAGS], &words, interspersed)
    }

    #[test]
    fn the_forms_a_flag_may_take() {
        let matches = read(
            &[
                "-it",
                "-p80:80",
                "-p",
                "81",
                "-p=82",
                "--name=x",
                "--sig-proxy=false",
                "img",
                "-d",
            ],
            false,
        )
        .unwrap();
        assert!(matches.bool("interactive") && matches.bool("tty"));
        assert!(!matches.bool("detach") && !matches.bool("sig-proxy"));
        assert_eq!(matches.list("publish"), ["80:80", "81", "82"]);
        assert_eq!(matches.text("name"), Some("x"));
        assert_eq!(matches.args, ["img", "-d"]);
        assert!(
            read(&["a", "-d", "--", "-x"], true).is_ok_and(|m| m.bool("detach") && m.args == ["a", "-x"])
        );
        assert!(read(&[], true).is_ok_and(|m| m.bool("sig-proxy")));
        assert_eq!(
            read(&["--retries", "0x10"], true).unwrap().int("retries"),
            Some(16)
        );
    }

    #[test]
    fn errors_name_the_flag() {
        for (words, want) in [
            (vec!["--foo"], "unknown flag: --foo"),
            (vec!["-y"], "unknown shorthand flag: 'y' in -y"),
            (vec!["-dy"], "unknown shorthand flag: 'y' in -y"),
            (vec!["--name"], "flag needs an argument: --name"),
            (vec!["-p"], "flag needs an argument: 'p' in -p"),
            (
                vec!["--tty=maybe"],
                "invalid argument \"maybe\" for \"-t, --tty\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                vec!["--retries", "x"],
                "invalid argument \"x\" for \"--retries\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                vec!["-m", "abc"],
                "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'",
            ),
        ] {
            assert_eq!(read(&words, true).unwrap_err(), want);
        }
    }
}
