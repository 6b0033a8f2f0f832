//! What a container adds to its log's entries: chosen labels and variables, and its tag.
//!
//! A tag is a template of Go's, of which the form that occurs is understood: text with `{{.Field}}` in it, and
//! `{{index .ContainerLabels "key"}}`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use regex_automata::nfa::thompson::pikevm::PikeVM;

use super::options::LogConfigError;

/// The container, as far as its log tells of it.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub id: &'a str,
    /// Without a slash.
    pub name: &'a str,
    pub image_id: &'a str,
    pub image: &'a str,
    /// The program and its arguments.
    pub command: String,
    pub created: Timestamp,
    /// `NAME=value`.
    pub env: &'a [String],
    pub labels: &'a BTreeMap<String, String>,
    /// The host's.
    pub hostname: String,
}

/// A regular expression in the form Go and we share.
pub(super) fn pattern(option: &'static str, text: &str) -> Result<PikeVM, LogConfigError> {
    PikeVM::new(text).map_err(|error| LogConfigError::Value {
        option,
        value: text.to_owned(),
        reason: format!("not a regular expression: {error}"),
    })
}

/// Which labels and variables are told.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) labels: Vec<String>,
    pub(super) labels_regex: Option<PikeVM>,
    pub(super) env: Vec<String>,
    pub(super) env_regex: Option<PikeVM>,
}

impl Selection {
    pub(super) fn of(&self, subject: &Subject<'_>) -> BTreeMap<String, String> {
        let env: BTreeMap<&str, &str> = subject
            .env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let labels: BTreeMap<&str, &str> = subject
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let mut chosen = BTreeMap::new();
        for (all, names, regex) in [
            (&labels, &self.labels, &self.labels_regex),
            (&env, &self.env, &self.env_regex),
        ] {
            let mut cache = regex.as_ref().map(PikeVM::create_cache);
            for (key, value) in all {
                let matches = match (regex, &mut cache) {
                    (Some(regex), Some(cache)) => regex.is_match(cache, *key),
                    _ => false,
                };
                if matches || names.iter().any(|name| name == key) {
                    chosen.insert((*key).to_owned(), (*value).to_owned());
                }
            }
        }
        chosen
    }
}

/// A tag's template, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    FullId,
    Name,
    ContainerName,
    ImageId,
    ImageFullId,
    ImageName,
    Command,
    Hostname,
    DaemonName,
}

const FIELDS: [(&str, Field); 14] = [
    ("ID", Field::Id),
    ("FullID", Field::FullId),
    ("ContainerID", Field::FullId),
    ("Name", Field::Name),
    ("ContainerName", Field::ContainerName),
    ("ImageID", Field::ImageId),
    ("ImageFullID", Field::ImageFullId),
    ("ContainerImageID", Field::ImageFullId),
    ("ImageName", Field::ImageName),
    ("ContainerImageName", Field::ImageName),
    ("Command", Field::Command),
    ("Hostname", Field::Hostname),
    ("DaemonName", Field::DaemonName),
    ("ContainerHostname", Field::Hostname),
];

impl Tag {
    pub(super) fn parse(text: &str) -> Result<Self, LogConfigError> {
        let bad = |reason: String| LogConfigError::Value {
            option: "tag",
            value: text.to_owned(),
            reason,
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| bad("unclosed action: a {{ has no }}".to_owned()))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let action = action.trim_matches(|c: char| c == '-' || c.is_whitespace());
            if let Some(key) = action.strip_prefix("index .ContainerLabels ") {
                let key = key
                    .trim()
                    .strip_prefix('"')
                    .and_then(|key| key.strip_suffix('"'))
                    .ok_or_else(|| bad("a label's name stands in double quotes".to_owned()))?;
                parts.push(Part::Label(key.to_owned()));
            } else {
                let found = FIELDS
                    .iter()
                    .find(|(name, _)| action.strip_prefix('.') == Some(*name));
                let (_, field) = found.ok_or_else(|| {
                    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
                    bad(format!(
                        "{{{{{action}}}}} is not known here; there are .{}",
                        known.join(", .")
                    ))
                })?;
                parts.push(Part::Field(*field));
            }
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    pub(super) fn of(&self, subject: &Subject<'_>) -> String {
        let short = |text: &str| text.chars().take(12).collect::<String>();
        let mut tag = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => tag.push_str(text),
                Part::Label(key) => tag.push_str(subject.labels.get(key).map_or("", String::as_str)),
                Part::Field(field) => match field {
                    Field::Id => tag.push_str(&short(subject.id)),
                    Field::FullId => tag.push_str(subject.id),
                    Field::Name => tag.push_str(subject.name),
                    Field::ContainerName => {
                        tag.push('/');
                        tag.push_str(subject.name);
                    }
                    Field::ImageId => tag.push_str(&short(subject.image_id)),
                    Field::ImageFullId => tag.push_str(subject.image_id),
                    Field::ImageName => tag.push_str(subject.image),
                    Field::Command => tag.push_str(&subject.command),
                    Field::Hostname => tag.push_str(&subject.hostname),
                    Field::DaemonName => tag.push_str("berth"),
                },
            }
        }
        tag
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn subject<'a>(env: &'a [String], labels: &'a BTreeMap<String, String>) -> Subject<'a> {
        Subject {
            id: "0123456789abcdef",
            name: "web",
            image_id: "sha256:fedcba9876543210",
            image: "app:1",
            command: "run it".into(),
            created: Timestamp::UNIX_EPOCH,
            env,
            labels,
            hostname: "host".into(),
        }
    }

    #[test]
    fn tags() {
        let labels = BTreeMap::from([("a.b".to_owned(), "x".to_owned())]);
        let subject = subject(&[], &labels);
        let tag = |text: &str| Tag::parse(text).unwrap().of(&subject);
        assert_eq!(tag("{{.ID}}"), "0123456789ab");
        assert_eq!(
            tag("docker/{{ .Name }}/{{.ImageName}}{{.ImageID}}"),
            "docker/web/app:1sha256:fedcb"
        );
        assert_eq!(tag("{{index .ContainerLabels \"a.b\"}}!"), "x!");
        assert_eq!(tag("plain"), "plain");
        assert!(Tag::parse("{{.ID").unwrap_err().to_string().contains("unclosed"));
        assert!(Tag::parse("{{.Nope}}").unwrap_err().to_string().contains(".Nope"));
    }

    #[test]
    fn labels_and_variables_are_chosen_by_name_and_by_pattern() {
        let env = ["PATH=/bin", "APP_A=1", "APP_B=x=y", "OTHER=2"].map(str::to_owned);
        let labels = [("tier", "web"), ("com.x", "1"), ("com.y", "2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let selection = Selection {
            labels: vec!["tier".into(), "missing".into()],
            labels_regex: Some(pattern("labels-regex", "^com\\.x").unwrap()),
            env: vec!["PATH".into()],
            env_regex: Some(pattern("env-regex", "^APP_").unwrap()),
        };
        let chosen = selection.of(&subject(&env, &labels));
        let pairs: Vec<(&str, &str)> = chosen.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("APP_A", "1"),
                ("APP_B", "x=y"),
                ("PATH", "/bin"),
                ("com.x", "1"),
                ("tier", "web")
            ]
        );
        assert!(pattern("env-regex", "(").is_err());
    }
}
