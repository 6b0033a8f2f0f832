//! FROM: the base of a stage, its platform and its name.

use super::read::{only_once, unknown_flag, value_of};
use crate::parse::{Command, Fault, whitespace_words};

/// A FROM instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image, earlier stage or `scratch`; unexpanded.
    pub base: String,
    /// Unexpanded.
    pub platform: Option<String>,
    /// The stage's name in lower case.
    pub name: Option<String>,
}

/// Reads a FROM.
pub fn read(command: &Command) -> Result<From, Fault> {
    only_once(&command.flags, &[])?;
    let mut platform = None;
    for flag in &command.flags {
        match flag.name.as_str() {
            "platform" => platform = Some(value_of(flag)?.to_owned()),
            _ => return Err(unknown_flag(flag, &["platform"])),
        }
    }
    let words = whitespace_words(&command.rest, command.rest_offset);
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, r#as, name] if r#as.text.eq_ignore_ascii_case("as") => {
            let lower = name.text.to_ascii_lowercase();
            let starts_well = lower.starts_with(|c: char| c.is_ascii_lowercase());
            let well = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            if !starts_well || !lower.chars().all(well) {
                return Err(Fault::at(
                    name,
                    format!(
                        "invalid name for build stage: \"{}\", name can't start with a number or contain symbols",
                        name.text
                    ),
                ));
            }
            (base, Some(lower))
        }
        [_, second, _] => {
            return Err(Fault::at(second, "FROM requires either one or three arguments")
                .help("write it as FROM image AS name"));
        }
        _ => return Err(command.rest_fault("FROM requires either one or three arguments")),
    };
    Ok(From {
        base: base.text.clone(),
        platform,
        name,
    })
}
