//! Names of units, and where systemd puts their control groups.
//!
//! A dash in a slice's name is a level: `a-b.slice` lies in `a.slice/a-b.slice`, and `-.slice` is the root. Sources:
//! systemd.slice(5), systemd.unit(5).

use crate::error::{CgroupError, Result};

/// Where a scope goes that names no slice.
const DEFAULT_SLICE: &str = "system.slice";
/// The prefix of a scope whose configuration names no group at all.
const DEFAULT_PREFIX: &str = "berth";
/// A unit's name in bytes, its ending included.
const LONGEST: usize = 255;

/// A transient scope: its slice and its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    slice: String,
    name: String,
    parent: String,
}

impl Unit {
    /// From `linux.cgroupsPath` in the form `slice:prefix:name`; the slice may be empty for `system.slice`, the prefix
    /// for none. Without a path the scope is `berth-<id>.scope`.
    pub fn from_path(path: Option<&str>, id: &str) -> Result<Unit> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Unit::new(DEFAULT_SLICE, DEFAULT_PREFIX, id);
        };
        let parts: Vec<&str> = path.split(':').collect();
        let &[slice, prefix, name] = parts.as_slice() else {
            return Err(CgroupError::Invalid(format!(
                "linux.cgroupsPath {path:?}: with the systemd driver it must have the form slice:prefix:name, as in \
                 system.slice:berth:{id}"
            )));
        };
        let slice = if slice.is_empty() { DEFAULT_SLICE } else { slice };
        Unit::new(slice, prefix, name)
    }

    /// One that was named before.
    pub(crate) fn recorded(parent: &str, name: &str) -> Unit {
        let slice = match parent.rsplit('/').next() {
            None | Some("") => "-.slice",
            Some(last) => last,
        };
        Unit {
            slice: slice.to_owned(),
            name: name.to_owned(),
            parent: parent.to_owned(),
        }
    }

    fn new(slice: &str, prefix: &str, name: &str) -> Result<Unit> {
        let parent = slice_path(slice)?;
        let scope = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let fits = !name.is_empty() && scope.len() <= LONGEST && scope.chars().all(is_unit_character);
        if !fits {
            return Err(CgroupError::Invalid(format!(
                "{scope:?} cannot be the name of a systemd unit: letters, digits and : - _ . \\ @ only, at most \
                 {LONGEST} of them"
            )));
        }
        Ok(Unit {
            slice: slice.to_owned(),
            name: scope,
            parent,
        })
    }

    /// The name of the slice.
    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// The name of the unit, which is its directory's as well.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The slice's directory from the trees' roots.
    pub fn parent(&self) -> &str {
        &self.parent
    }
}

fn is_unit_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || ":-_.\\@".contains(character)
}

/// `/a.slice/a-b.slice` of `a-b.slice`.
fn slice_path(slice: &str) -> Result<String> {
    let invalid = || {
        CgroupError::Invalid(format!(
            "{slice:?} is not the name of a systemd slice (as in a-b.slice)"
        ))
    };
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem == "-" {
        return Ok("/".to_owned());
    }
    let mut path = String::new();
    let mut level = String::new();
    for part in stem.split('-') {
        if part.is_empty() || !part.chars().all(is_unit_character) {
            return Err(invalid());
        }
        if !level.is_empty() {
            level.push('-');
        }
        level.push_str(part);
        path.push_str(&format!("/{level}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: Option<&str>) -> (String, String) {
        let unit = Unit::from_path(path, "web").unwrap();
        (unit.parent, unit.name)
    }

    #[test]
    fn scopes_and_their_places() {
        let expected = |parent: &str, name: &str| (parent.to_owned(), name.to_owned());
        assert_eq!(place(None), expected("/system.slice", "berth-web.scope"));
        assert_eq!(place(Some(":p:n")), expected("/system.slice", "p-n.scope"));
        assert_eq!(place(Some("a.slice::n")), expected("/a.slice", "n.scope"));
        assert_eq!(
            place(Some("a-b-c.slice:p:n")),
            expected("/a.slice/a-b.slice/a-b-c.slice", "p-n.scope")
        );
        assert_eq!(place(Some("-.slice:p:n")), expected("/", "p-n.scope"));
        for path in ["a-b-c.slice:p:n", "-.slice:p:n", ":p:n"] {
            let unit = Unit::from_path(Some(path), "web").unwrap();
            assert_eq!(Unit::recorded(unit.parent(), unit.name()), unit);
        }
    }

    #[test]
    fn what_names_no_unit_is_refused() {
        for bad in [
            "/a/b",
            "a.slice:n",
            "a:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a/b.slice:p:n",
            ".slice:p:n",
            "a.slice:p:",
            "a.slice:p/q:n",
            "a.slice:p:n+1",
            "a.slice:p:n:o",
        ] {
            let error = Unit::from_path(Some(bad), "web").unwrap_err();
            assert!(matches!(error, CgroupError::Invalid(_)), "{bad}");
        }
        assert!(Unit::from_path(Some(&format!(":p:{}", "n".repeat(260))), "web").is_err());
    }
}
