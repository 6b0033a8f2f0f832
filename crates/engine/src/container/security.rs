//! What `--security-opt` says. Words and errors are Docker's.

use super::seccomp;
use crate::error::{Error, Result};

#[derive(Debug, Default)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    filter: Filter,
    /// Nothing of /proc and /sys is masked or read-only.
    pub(super) unconfined_paths: bool,
    pub(super) apparmor: String,
    pub(super) label: String,
}

#[derive(Debug, Default)]
enum Filter {
    #[default]
    Default,
    None,
    /// A profile's text.
    Profile(String),
}

impl Security {
    pub(super) fn parse(options: &[String]) -> Result<Security> {
        let mut security = Security::default();
        for option in options {
            if option == "no-new-privileges" {
                security.no_new_privileges = true;
                continue;
            }
            let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
                return Err(Error::invalid(format!("invalid --security-opt 1: {option:?}")));
            };
            match (key, value) {
                ("no-new-privileges", "true" | "1" | "t" | "T" | "TRUE" | "True") => {
                    security.no_new_privileges = true;
                }
                ("no-new-privileges", "false" | "0" | "f" | "F" | "FALSE" | "False") => {
                    security.no_new_privileges = false;
                }
                ("seccomp", "unconfined") => security.filter = Filter::None,
                ("seccomp", "builtin") => security.filter = Filter::Default,
                ("seccomp", text) if !text.is_empty() => security.filter = Filter::Profile(text.to_owned()),
                ("systempaths", "unconfined") => security.unconfined_paths = true,
                ("apparmor", "unconfined" | "") => security.apparmor.clear(),
                ("apparmor", profile) => profile.clone_into(&mut security.apparmor),
                ("label", "disable") => security.label.clear(),
                ("label", label) => label.clone_into(&mut security.label),
                _ => return Err(Error::invalid(format!("invalid --security-opt 2: {option:?}"))),
            }
        }
        Ok(security)
    }

    /// The filter of system calls for a process whose bounding set is `capabilities`.
    pub(super) fn filter(&self, capabilities: &[String]) -> Result<Option<spec::runtime::Seccomp>> {
        match &self.filter {
            Filter::None => Ok(None),
            Filter::Default => Ok(Some(runtime::default_seccomp(capabilities))),
            Filter::Profile(text) => seccomp::read(text, capabilities).map_err(Error::invalid),
        }
    }

    /// As `info` and the isolation report name the choice.
    pub(super) fn filter_name(&self) -> &'static str {
        match &self.filter {
            Filter::None => "unconfined",
            Filter::Default => "builtin",
            Filter::Profile(_) => "profile",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(option: &str) -> Result<Security> {
        Security::parse(&[option.to_owned()])
    }

    #[test]
    fn words() {
        assert!(parse("no-new-privileges").unwrap().no_new_privileges);
        assert!(parse("no-new-privileges:true").unwrap().no_new_privileges);
        assert!(!parse("no-new-privileges=0").unwrap().no_new_privileges);
        assert_eq!(parse("seccomp=unconfined").unwrap().filter(&[]).unwrap(), None);
        assert!(parse("seccomp=builtin").unwrap().filter(&[]).unwrap().is_some());
        assert_eq!(parse("apparmor=mine").unwrap().apparmor, "mine");
    }

    #[test]
    fn what_is_not_a_word() {
        let message = |option: &str| parse(option).unwrap_err().message;
        assert_eq!(message("foo"), "invalid --security-opt 1: \"foo\"");
        for option in [
            "foo=bar",
            "no-new-privileges=maybe",
            "seccomp=",
            "systempaths=confined",
        ] {
            assert_eq!(message(option), format!("invalid --security-opt 2: {option:?}"));
        }
        let error = parse("seccomp={").unwrap().filter(&[]).unwrap_err();
        assert!(
            error.message.starts_with("Decoding seccomp profile failed: "),
            "{}",
            error.message
        );
    }
}
