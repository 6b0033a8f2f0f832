//! What `--security-opt` says. Words and errors are Docker's.

use api_types::HostConfig;
use spec::Id;

use super::seccomp;
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::selinux::{self, Labels};

#[derive(Debug, Default)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    filter: Filter,
    /// Nothing of /proc and /sys is masked or read-only.
    pub(super) unconfined_paths: bool,
    /// The profile that is asked for, if one is.
    pub(super) apparmor: Option<String>,
    /// What is said about SELinux labels.
    labels: Vec<String>,
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
            if option == "disable" {
                security.labels.push(option.clone());
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
                ("apparmor", profile) => security.apparmor = Some(profile.to_owned()),
                ("label", word) => security.labels.push(word.to_owned()),
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

/// The AppArmor profile of a container's processes.
pub(super) fn profile(inner: &Inner, host: &HostConfig) -> Result<String> {
    let security = Security::parse(&host.security_opt)?;
    Ok(inner
        .apparmor
        .profile(security.apparmor.as_deref(), host.privileged))
}

/// The SELinux labels of a new container. What follows from its other settings is added to its options, as clients of
/// Docker see it: what shares the host's namespaces is not confined, and what shares another container's has its label.
pub(super) fn labels(
    inner: &Inner,
    id: &Id,
    host: &mut HostConfig,
    warnings: &mut Vec<String>,
) -> Result<Labels> {
    let mut words = Security::parse(&host.security_opt)?.labels;
    if words.is_empty() {
        words = implied(inner, host)?;
        let options = words.iter().map(|word| format!("label={word}"));
        let options: Vec<String> = host.security_opt.iter().cloned().chain(options).collect();
        if !words.is_empty() {
            host.security_opt = options.into();
        }
    } else if !inner.selinux.is_on() && words.iter().any(|word| word != "disable") {
        warnings.push(
            "SELinux labels are not applied: the daemon runs without --selinux-enabled, or the kernel has no SELinux in \
             force"
                .to_owned(),
        );
    }
    inner.selinux.take(id, &words)
}

fn implied(inner: &Inner, host: &HostConfig) -> Result<Vec<String>> {
    if host.privileged || host.ipc_mode == "host" || host.pid_mode == "host" {
        return Ok(vec!["disable".to_owned()]);
    }
    let mut found: Option<Vec<String>> = None;
    for mode in [&host.ipc_mode, &host.pid_mode] {
        let Some(name) = mode.strip_prefix("container:") else {
            continue;
        };
        let words = selinux::same_as(&inner.containers.find(name)?.snapshot().process_label);
        if found.as_ref().is_some_and(|found| *found != words) {
            return Err(Error::invalid(
                "--ipc and --pid containers SELinux labels aren't the same",
            ));
        }
        found = Some(words);
    }
    Ok(found.unwrap_or_default())
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
        assert_eq!(parse("apparmor=mine").unwrap().apparmor.as_deref(), Some("mine"));
        assert_eq!(parse("label=level:s0:c1,c2").unwrap().labels, ["level:s0:c1,c2"]);
        assert_eq!(parse("label:disable").unwrap().labels, ["disable"]);
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
