//! ENV, LABEL and ARG: names with values.

use super::{Argument, Pair};
use crate::parse::{Command, Fault, pair_words};

/// Reads `k=v k=v …`, or the old form `k rest of the line`.
pub fn pairs(command: &Command) -> Result<Vec<Pair>, Fault> {
    let keyword = &command.keyword;
    let words = pair_words(&command.rest, command.rest_offset, command.escape);
    let Some(first) = words.first() else {
        return Err(command.fault(format!("{keyword} requires at least one argument")));
    };
    if !first.text.contains('=') {
        let value = command.rest.get(first.width..).unwrap_or_default().trim_start();
        if value.is_empty() {
            return Err(Fault::at(first, format!("{keyword} must have two arguments"))
                .help(format!("write it as {keyword} {}=VALUE", first.text)));
        }
        return Ok(vec![Pair {
            key: first.text.clone(),
            value: value.to_owned(),
        }]);
    }
    let mut found = Vec::new();
    for word in &words {
        let Some((key, value)) = word.text.split_once('=') else {
            return Err(Fault::at(
                word,
                format!(
                    "Syntax error - can't find = in \"{}\". Must be of the form: name=value",
                    word.text
                ),
            )
            .help("a value with blanks needs quotes"));
        };
        if key.is_empty() {
            return Err(Fault::at(word, format!("{keyword} names can not be blank")));
        }
        found.push(Pair {
            key: key.to_owned(),
            value: value.to_owned(),
        });
    }
    Ok(found)
}

/// Reads `name`, `name=default`, several of them.
pub fn arguments(command: &Command) -> Result<Vec<Argument>, Fault> {
    let words = pair_words(&command.rest, command.rest_offset, command.escape);
    if words.is_empty() {
        return Err(command.fault("ARG requires at least one argument"));
    }
    let mut found = Vec::new();
    for word in &words {
        let (name, default) = match word.text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.text.as_str(), None),
        };
        if name.is_empty() {
            return Err(Fault::at(word, "ARG names can not be blank"));
        }
        found.push(Argument {
            name: name.to_owned(),
            default,
        });
    }
    Ok(found)
}
