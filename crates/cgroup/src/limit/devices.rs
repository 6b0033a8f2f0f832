//! Which device nodes may be opened or made.
//!
//! The rules of a runtime document are an ordered list. What such a list means is defined by the v1 controller
//! (Linux security/device_cgroup.c): a default, and a set of exceptions to it. [`DeviceRules`] is that state, so that
//! v2, where there are no files but a program to attach, means exactly the same.

use spec::runtime::DeviceCgroup;

use super::device_filter;
use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// Access bits as the kernel numbers them (BPF_DEVCG_ACC_*).
pub(crate) const MKNOD: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Block,
    Char,
}

/// A device, or a family of devices, that differs from the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    pub kind: Kind,
    /// None is any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Bits: 1 mknod, 2 read, 4 write.
    pub access: u8,
}

/// A default and its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRules {
    pub allow_by_default: bool,
    pub exceptions: Vec<Exception>,
}

/// One rule, checked.
pub(super) struct Rule {
    allow: bool,
    /// None is every device of either kind, whatever the numbers.
    exception: Option<Exception>,
}

impl DeviceRules {
    /// The meaning of a list of rules in a fresh group, where everything is allowed.
    pub fn from_rules(rules: &[DeviceCgroup]) -> Result<Self> {
        let mut state = Self {
            allow_by_default: true,
            exceptions: Vec::new(),
        };
        for rule in rules {
            for rule in check(rule)? {
                state.add(&rule);
            }
        }
        Ok(state)
    }

    /// Whether an access would pass; the program of v2 answers the same.
    pub fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let concerns = |exception: &&Exception| {
            exception.kind == kind
                && exception.major.is_none_or(|number| number == major)
                && exception.minor.is_none_or(|number| number == minor)
        };
        let mut matching = self.exceptions.iter().filter(concerns);
        if self.allow_by_default {
            !matching.any(|exception| exception.access & access != 0)
        } else {
            matching.any(|exception| exception.access & access == access)
        }
    }

    fn add(&mut self, rule: &Rule) {
        let Some(exception) = rule.exception else {
            self.allow_by_default = rule.allow;
            self.exceptions.clear();
            return;
        };
        let same = |known: &&mut Exception| {
            known.kind == exception.kind && known.major == exception.major && known.minor == exception.minor
        };
        if rule.allow == self.allow_by_default {
            // Back to the default: only an exception for the very same numbers is taken back.
            if let Some(known) = self.exceptions.iter_mut().find(same) {
                known.access &= !exception.access;
            }
            self.exceptions.retain(|known| known.access != 0);
        } else if let Some(known) = self.exceptions.iter_mut().find(same) {
            known.access |= exception.access;
        } else {
            self.exceptions.push(exception);
        }
    }
}

impl Cgroup {
    pub(super) fn apply_devices(&self, rules: &[DeviceCgroup]) -> Result<()> {
        if self.version() == Version::V2 {
            let program = device_filter::compile(&DeviceRules::from_rules(rules)?);
            let directory = self.unified().ok_or(CgroupError::Missing {
                controller: "unified",
                limit: "device rules",
            })?;
            return device_filter::attach(&directory, &program);
        }
        let directory = self.v1_for("devices", "device rules")?;
        for rule in rules {
            for rule in check(rule)? {
                let name = if rule.allow {
                    "devices.allow"
                } else {
                    "devices.deny"
                };
                file::write_limit(&directory.join(name), &line(&rule), "device rules")?;
            }
        }
        Ok(())
    }
}

/// A line for `devices.allow` or `devices.deny`.
fn line(rule: &Rule) -> String {
    let Some(exception) = &rule.exception else {
        return "a".into();
    };
    let kind = match exception.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
    format!(
        "{kind} {}:{} {}",
        number(exception.major),
        number(exception.minor),
        letters(exception.access)
    )
}

/// Access as it is written: some of `rwm`.
pub(crate) fn letters(access: u8) -> String {
    let bits = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    let asked = bits.iter().filter(|(bit, _)| access & bit != 0);
    asked.map(|(_, letter)| letter).collect()
}

/// A rule of the document as one or two of ours. "All devices" is only a wildcard when it is about everything:
/// the kernel would take `a 1:3 r` for it and open the whole machine, so such a rule becomes one per kind.
pub(super) fn check(rule: &DeviceCgroup) -> Result<Vec<Rule>> {
    let mut access = 0;
    for letter in rule.access.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => {
                return Err(CgroupError::Invalid(format!(
                    "invalid device access {:?}: only r, w, m",
                    rule.access
                )));
            }
        };
    }
    if access == 0 {
        access = ALL;
    }
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    let kinds: &[Kind] = match rule.r#type.as_deref().unwrap_or("a") {
        "a" | "" if access == ALL && major.is_none() && minor.is_none() => {
            return Ok(vec![Rule {
                allow: rule.allow,
                exception: None,
            }]);
        }
        "a" | "" => &[Kind::Char, Kind::Block],
        "c" | "u" => &[Kind::Char],
        "b" => &[Kind::Block],
        other => {
            return Err(CgroupError::Invalid(format!(
                "invalid device type {other:?}: only a, b, c"
            )));
        }
    };
    Ok(kinds
        .iter()
        .map(|&kind| Rule {
            allow: rule.allow,
            exception: Some(Exception {
                kind,
                major,
                minor,
                access,
            }),
        })
        .collect())
}

fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None => Ok(None),
        Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| CgroupError::Invalid(format!("invalid device number {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceCgroup {
        DeviceCgroup {
            allow,
            r#type: Some(kind.into()),
            major: Some(major),
            minor: Some(minor),
            access: access.into(),
        }
    }

    #[test]
    fn a_denied_world_with_exceptions() {
        let rules = [
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "c", -1, -1, "m"),
            rule(true, "c", 1, 3, "rw"),
            rule(true, "c", 1, 3, "m"),
            rule(false, "c", 1, 3, "w"),
        ];
        let state = DeviceRules::from_rules(&rules).unwrap();
        assert!(!state.allow_by_default);
        assert!(state.allows(Kind::Char, 1, 3, READ));
        assert!(!state.allows(Kind::Char, 1, 3, READ | WRITE));
        assert!(state.allows(Kind::Char, 9, 9, MKNOD));
        assert!(!state.allows(Kind::Block, 8, 0, MKNOD));
    }

    #[test]
    fn an_open_world_with_exceptions() {
        let state = DeviceRules::from_rules(&[rule(false, "b", 8, -1, "w")]).unwrap();
        assert!(state.allows(Kind::Block, 8, 1, READ));
        assert!(!state.allows(Kind::Block, 8, 1, READ | WRITE));
        assert!(state.allows(Kind::Char, 8, 1, WRITE));
    }

    #[test]
    fn all_kinds_with_numbers_is_not_the_world() {
        let state =
            DeviceRules::from_rules(&[rule(false, "a", -1, -1, ""), rule(true, "a", 1, 5, "r")]).unwrap();
        assert!(state.allows(Kind::Char, 1, 5, READ) && state.allows(Kind::Block, 1, 5, READ));
        assert!(!state.allows(Kind::Char, 1, 6, READ));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(DeviceRules::from_rules(&[rule(true, "x", 1, 1, "r")]).is_err());
        assert!(DeviceRules::from_rules(&[rule(true, "c", -2, 1, "r")]).is_err());
        assert!(DeviceRules::from_rules(&[rule(true, "c", 1, 1, "rx")]).is_err());
    }

    #[test]
    fn lines_of_v1() {
        let lines: Vec<String> = check(&rule(true, "c", 136, -1, "rwm"))
            .unwrap()
            .iter()
            .map(line)
            .collect();
        assert_eq!(lines, ["c 136:* rwm"]);
        assert_eq!(line(&check(&rule(false, "a", -1, -1, "rwm")).unwrap()[0]), "a");
    }
}
