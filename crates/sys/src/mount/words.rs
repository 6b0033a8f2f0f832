//! The words of mount(8) that are attributes of a mount and not options of its filesystem.

use super::Attributes;

/// What a word does to the attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    Set(u64),
    Clear(u64),
    /// In place of the access time policy that is there.
    Atime(u64),
}

impl Bits {
    /// Of a word, if it is one of these.
    pub fn of(word: &str) -> Option<Bits> {
        Some(match word {
            "ro" => Bits::Set(Attributes::READ_ONLY),
            "rw" => Bits::Clear(Attributes::READ_ONLY),
            "nosuid" => Bits::Set(Attributes::NO_SUID),
            "suid" => Bits::Clear(Attributes::NO_SUID),
            "nodev" => Bits::Set(Attributes::NO_DEV),
            "dev" => Bits::Clear(Attributes::NO_DEV),
            "noexec" => Bits::Set(Attributes::NO_EXEC),
            "exec" => Bits::Clear(Attributes::NO_EXEC),
            "nosymfollow" => Bits::Set(Attributes::NO_SYMFOLLOW),
            "symfollow" => Bits::Clear(Attributes::NO_SYMFOLLOW),
            "nodiratime" => Bits::Set(Attributes::NO_DIR_ATIME),
            "diratime" => Bits::Clear(Attributes::NO_DIR_ATIME),
            "noatime" => Bits::Atime(Attributes::NO_ATIME),
            "strictatime" => Bits::Atime(Attributes::STRICT_ATIME),
            "relatime" | "atime" | "norelatime" | "nostrictatime" => Bits::Atime(0),
            _ => return None,
        })
    }
}

/// Whether a word says how mounts on this one pass on to others.
pub fn is_propagation(word: &str) -> bool {
    let word = word.strip_prefix('r').unwrap_or(word);
    matches!(word, "shared" | "slave" | "private" | "unbindable")
}

/// Whether a word says what is so anyway, concerns tools that read fstab, or is no longer for mounts to say: filesystems that
/// count versions of files do so always.
pub fn says_nothing(word: &str) -> bool {
    matches!(
        word,
        "defaults"
            | "async"
            | "loud"
            | "silent"
            | "nomand"
            | "iversion"
            | "noiversion"
            | "nolazytime"
            | "remount"
            | ""
    )
}
