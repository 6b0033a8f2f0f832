//! Which names a volume can have: those that are a safe directory name, in Docker's grammar.

use crate::VolumeError;

const MAX: usize = 255;

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so neither empty, nor a path, nor hidden, nor `..`.
pub(crate) fn check(name: &str) -> Result<(), VolumeError> {
    if name.len() == 1 {
        return Err(VolumeError::NameTooShort(name.to_owned()));
    }
    if !is_valid(name) {
        return Err(VolumeError::InvalidName(name.to_owned()));
    }
    if name.len() > MAX {
        return Err(VolumeError::NameTooLong(name.to_owned()));
    }
    Ok(())
}

fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next();
    first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directory_names_pass() {
        for good in ["ab", "a.b", "A-1_2.3", "0a", &"x".repeat(255)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "a\0",
            "é1",
            "_ab",
            &"x".repeat(256),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_words_are_dockers() {
        assert_eq!(
            check("a/b").unwrap_err().to_string(),
            "create a/b: \"a/b\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
             absolute path"
        );
    }
}
