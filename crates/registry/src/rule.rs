//! Rules for registries by the beginning of names: mirrors, another location, credentials, signatures, or none at all.
//!
//! A prefix is a registry with any number of path components behind it (`quay.io`, `ghcr.io/team`) and counts at a
//! component's border; `*` is every name. Of several that fit, the longest counts, alone. What follows the prefix in a
//! name follows a mirror's path and the location; behind `*` that is the whole name with its registry, as pull-through
//! caches of many registries want it.
//!
//! Credentials of mirrors come from the rule's own file, never from a client: those are the registry's.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use spec::Reference;

use crate::auth::Auth;
use crate::config::{ConfigError, parse_mirror};
use crate::error::Error;

/// Every name.
const ALL: &str = "*";
/// Most bytes of a file with credentials.
const MAX_AUTH: u64 = 1 << 20;

/// What holds for names below a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    pub prefix: String,
    /// Where these names really are: a registry with an optional path.
    #[serde(default)]
    pub location: Option<String>,
    /// Base URLs that are asked first when pulling, in this order.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// The registry itself is never asked.
    #[serde(default)]
    pub only_mirrors: bool,
    /// Nothing may be pulled from there or pushed to it.
    #[serde(default)]
    pub blocked: bool,
    /// As if named in `insecure-registries`.
    #[serde(default)]
    pub insecure: bool,
    /// Logins of the mirrors, and of the registry for clients that bring none, in the form of Docker's config.json.
    #[serde(default)]
    pub auth_file: Option<PathBuf>,
    /// Public keys, one of which must have signed what is pulled.
    #[serde(default)]
    pub signed_by: Vec<PathBuf>,
}

impl Rule {
    /// What follows the prefix in `name`, if the rule is about it.
    fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.prefix == ALL {
            return Some(name);
        }
        let rest = name.strip_prefix(self.prefix.as_str())?;
        match rest.is_empty() {
            true => Some(rest),
            false => rest.strip_prefix('/'),
        }
    }
}

/// The rule for a name, with what follows its prefix.
pub(crate) fn find<'a, 'n>(rules: &'a [Rule], name: &'n str) -> Option<(&'a Rule, &'n str)> {
    rules
        .iter()
        .filter_map(|rule| Some((rule, rule.rest(name)?)))
        .min_by_key(|(_, rest)| rest.len())
}

/// The rule for a reference, unless it is blocked there.
pub(crate) fn permitted<'a>(rules: &'a [Rule], reference: &Reference) -> Result<Option<&'a Rule>, Error> {
    match find(rules, &reference.name()) {
        Some((rule, _)) if rule.blocked => Err(Error::Blocked {
            name: reference.familiar_name(),
            prefix: rule.prefix.clone(),
        }),
        found => Ok(found.map(|(rule, _)| rule)),
    }
}

pub(crate) fn validate(rules: &[Rule]) -> Result<(), ConfigError> {
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |detail: String| {
            Err(ConfigError::Rule {
                prefix: rule.prefix.clone(),
                detail,
            })
        };
        if rule.prefix != ALL && !is_place(&rule.prefix) {
            return wrong(
                "a prefix is a registry with an optional path, such as quay.io/team, or *".to_owned(),
            );
        }
        if rules.iter().take(index).any(|other| other.prefix == rule.prefix) {
            return wrong("the prefix has a rule already".to_owned());
        }
        if let Some(location) = &rule.location
            && !is_place(location)
        {
            return wrong(format!(
                "location {location:?} is not a registry with an optional path, such as reg.lan:5000/quay"
            ));
        }
        for mirror in &rule.mirrors {
            parse_mirror(mirror)?;
        }
        if rule.only_mirrors && rule.mirrors.is_empty() {
            return wrong("only-mirrors without mirrors leaves nothing to ask; use blocked".to_owned());
        }
        for path in rule.signed_by.iter().chain(&rule.auth_file) {
            if !path.is_absolute() {
                return wrong(format!("{} is not an absolute path", path.display()));
            }
        }
    }
    Ok(())
}

/// `host[:port][/path]`, with nothing else a name could not begin with.
fn is_place(text: &str) -> bool {
    let named = format!("{text}/x").parse::<Reference>();
    named.is_ok_and(|reference| reference.name() == format!("{text}/x"))
}

/// The login for `host` in a file in the form of Docker's config.json.
pub(crate) fn login(file: &Path, host: &str) -> Result<Auth, Error> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        auths: std::collections::BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        auth: String,
        #[serde(default)]
        identitytoken: String,
    }
    let wrong = |detail: String| Error::AuthFile {
        path: file.to_owned(),
        detail,
    };
    let opened = std::fs::File::open(file).map_err(|error| wrong(error.to_string()))?;
    let meta = opened.metadata().map_err(|error| wrong(error.to_string()))?;
    if meta.mode() & 0o077 != 0 {
        return Err(wrong("others may read it; chmod 600".to_owned()));
    }
    let mut text = Vec::new();
    opened
        .take(MAX_AUTH)
        .read_to_end(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    // An error of JSON says where it is and never what is there.
    let document: Document = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let bare = |key: &str| {
        let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest).to_owned()
    };
    let Some((_, entry)) = document.auths.iter().find(|(key, _)| bare(key) == host) else {
        return Ok(Auth::Anonymous);
    };
    if !entry.identitytoken.is_empty() {
        return Ok(Auth::Identity(entry.identitytoken.clone()));
    }
    let decoded = STANDARD.decode(&entry.auth).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(Auth::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }),
        None => Err(wrong(format!("auth of {host} is not base64 of NAME:PASSWORD"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn rule(prefix: &str) -> Rule {
        Rule {
            prefix: prefix.to_owned(),
            ..Rule::default()
        }
    }

    #[test]
    fn the_longest_prefix_counts() {
        let rules = [rule("*"), rule("quay.io"), rule("quay.io/team")];
        let of = |name: &str| find(&rules, name).map(|(rule, rest)| (rule.prefix.as_str(), rest.to_owned()));
        assert_eq!(of("quay.io/team/app"), Some(("quay.io/team", "app".into())));
        assert_eq!(of("quay.io/teams/app"), Some(("quay.io", "teams/app".into())));
        assert_eq!(of("ghcr.io/x"), Some(("*", "ghcr.io/x".into())));
        assert_eq!(find(&rules[1..], "ghcr.io/x"), None);
    }

    #[test]
    fn mistakes_are_told_with_their_rule() {
        let told = |rule: Rule| validate(&[rule]).unwrap_err().to_string();
        for prefix in ["", "https://quay.io", "Quay io", "quay.io/", "busybox"] {
            assert!(told(rule(prefix)).contains("a prefix is a registry"), "{prefix}");
        }
        assert!(validate(&[rule("quay.io"), rule("quay.io")]).is_err());
        let only = Rule {
            only_mirrors: true,
            ..rule("quay.io")
        };
        assert!(told(only).contains("quay.io") && validate(&[rule("localhost:5000/a"), rule("*")]).is_ok());
    }

    #[test]
    fn logins_are_read_from_a_file_that_nobody_else_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        std::fs::write(
            &file,
            r#"{"auths":{"https://m.lan:81/v1/":{"auth":"dTpw"},"bad":{"auth":"?"}}}"#,
        )
        .unwrap();
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(
            login(&file, "m.lan:81")
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
        mode(0o600);
        assert!(
            matches!(login(&file, "m.lan:81").unwrap(), Auth::Basic { user, password } if user == "u" && password == "p")
        );
        assert!(login(&file, "m.lan").unwrap() == Auth::Anonymous);
        assert!(login(&file, "bad").unwrap_err().to_string().contains("bad"));
    }
}
