//! COPY and ADD.

use super::read::{only_once, switch, unknown_flag, value_of};
use crate::parse::{Command, Fault, announce, json_strings, whitespace_words};

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inline {
    pub name: String,
    pub content: String,
    pub expand: bool,
}

/// A COPY or ADD instruction; all texts are unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<String>,
    pub inline: Vec<Inline>,
    pub destination: String,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub exclude: Vec<String>,
    pub parents: bool,
    /// The layer shall not depend on the ones below.
    pub link: bool,
    /// ADD: digest that a fetched file must have.
    pub checksum: Option<String>,
    /// ADD: whether archives are unpacked; by default local ones are, fetched ones are not.
    pub unpack: Option<bool>,
    /// ADD of a git repository: whether its `.git` comes along.
    pub keep_git_dir: Option<bool>,
}

/// Reads a COPY, or an ADD if `add`.
pub fn read(command: &Command, add: bool) -> Result<Copy, Fault> {
    const COPY_FLAGS: [&str; 6] = ["from", "chown", "chmod", "link", "parents", "exclude"];
    const ADD_FLAGS: [&str; 7] = [
        "chown",
        "chmod",
        "link",
        "exclude",
        "checksum",
        "keep-git-dir",
        "unpack",
    ];
    let known: &[&str] = if add { &ADD_FLAGS } else { &COPY_FLAGS };
    only_once(&command.flags, &["exclude"])?;
    let mut copy = Copy {
        sources: Vec::new(),
        inline: Vec::new(),
        destination: String::new(),
        from: None,
        chown: None,
        chmod: None,
        exclude: Vec::new(),
        parents: false,
        link: false,
        checksum: None,
        unpack: None,
        keep_git_dir: None,
    };
    for flag in &command.flags {
        if !known.contains(&flag.name.as_str()) {
            return Err(unknown_flag(flag, known));
        }
        match flag.name.as_str() {
            "from" => copy.from = Some(value_of(flag)?.to_owned()),
            "chown" => copy.chown = Some(value_of(flag)?.to_owned()),
            "chmod" => copy.chmod = Some(value_of(flag)?.to_owned()),
            "exclude" => copy.exclude.push(value_of(flag)?.to_owned()),
            "checksum" => copy.checksum = Some(value_of(flag)?.to_owned()),
            "link" => copy.link = switch(flag)?,
            "parents" => copy.parents = switch(flag)?,
            "unpack" => copy.unpack = Some(switch(flag)?),
            _ => copy.keep_git_dir = Some(switch(flag)?),
        }
    }
    if copy.from.as_deref() == Some("") {
        return Err(command.rest_fault("--from must name a stage or an image"));
    }
    let texts = json_strings(&command.rest).unwrap_or_else(|| {
        whitespace_words(&command.rest, 0)
            .into_iter()
            .map(|word| word.text)
            .collect()
    });
    let Some((destination, sources)) = texts.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        let message = format!("{} requires at least two arguments", command.keyword);
        return Err(command
            .rest_fault(format!("{message}, but only {} were provided", texts.len()))
            .help(format!("write it as {} SOURCE… DESTINATION", command.keyword)));
    };
    if announce(destination).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", command.keyword);
        return Err(command.rest_fault(message));
    }
    copy.destination = destination.clone();
    for source in sources {
        let Some(wanted) = announce(source) else {
            copy.sources.push(source.clone());
            continue;
        };
        // A list in JSON form may spell a heredoc that the line never opened.
        if let Some(heredoc) = command
            .heredocs
            .iter()
            .find(|heredoc| heredoc.name == wanted.name)
        {
            copy.inline.push(Inline {
                name: heredoc.name.clone(),
                content: heredoc.content.clone(),
                expand: heredoc.expand,
            });
        }
    }
    if copy.sources.is_empty() && copy.inline.is_empty() {
        return Err(command.rest_fault(format!("{} has no sources", command.keyword)));
    }
    if copy.from.is_some() && !copy.inline.is_empty() {
        return Err(command.rest_fault("COPY --from cannot be used with a heredoc source"));
    }
    Ok(copy)
}
