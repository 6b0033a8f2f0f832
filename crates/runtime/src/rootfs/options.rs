//! Mount options: the words of `config.json` (and of fstab) as attribute bits, propagation and the rest that
//! belongs to the filesystem.
//!
//! A later word wins over an earlier one. Words with an `r` before them (`rro`) hold for the whole tree.
//! Whatever is not a word of this table is handed to the filesystem as data.
//!
//! Sources: OCI runtime-spec 1.3 config.md "Linux mount options", mount(8), mount_setattr(2).

use std::path::PathBuf;

use spec::runtime::Mount;
use sys::mount::words::{Bits, says_nothing};
use sys::mount::{Attributes, Propagation};

/// SELinux's, of any filesystem: the label of all its files.
pub(super) const CONTEXT: &str = "context=";

const BENEATH: &str = "x-berth.beneath=";
const PART: &str = "x-berth.part=";
const CALLED: &str = "x-berth.called=";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub set: u64,
    pub clear: u64,
    pub set_all: u64,
    pub clear_all: u64,
    /// The propagation and whether it holds for the whole tree.
    pub propagation: Option<(Propagation, bool)>,
    /// A bind mount, and whether with its submounts.
    pub bind: Option<bool>,
    pub copy_up: bool,
    /// An id-mapped mount, and whether with its submounts.
    pub idmap: Option<bool>,
    /// The directory that no link may lead a bind's source out of (`x-berth.beneath=`, an engine's word).
    pub beneath: Option<PathBuf>,
    /// The directory or file in an overlay that is mounted instead of its root (`x-berth.part=`, an engine's word).
    pub part: Option<PathBuf>,
    /// What a failure calls the mount beside its source (`x-berth.called=`, an engine's word).
    pub called: Option<String>,
    pub data: Vec<String>,
}

fn apply(bits: Bits, set: &mut u64, clear: &mut u64) {
    match bits {
        Bits::Set(bit) => {
            *set |= bit;
            *clear &= !bit;
        }
        Bits::Clear(bit) => {
            *clear |= bit;
            *set &= !bit;
        }
        Bits::Atime(value) => {
            *set = (*set & !Attributes::ATIME) | value;
            *clear |= Attributes::ATIME;
        }
    }
}

impl Options {
    pub fn parse(mount: &Mount) -> Options {
        let mut options = Options::default();
        if mount.r#type.as_deref() == Some("bind") {
            options.bind = Some(false);
        }
        for word in &mount.options {
            options.word(word);
        }
        options
    }

    /// Of one word alone.
    pub fn of(word: &str) -> Options {
        let mut options = Options::default();
        options.word(word);
        options
    }

    fn word(&mut self, word: &str) {
        if let Some(bits) = Bits::of(word) {
            return apply(bits, &mut self.set, &mut self.clear);
        }
        if let Some(bits) = word.strip_prefix('r').and_then(Bits::of) {
            return apply(bits, &mut self.set_all, &mut self.clear_all);
        }
        let propagation = match word {
            "shared" => Some((Propagation::Shared, false)),
            "rshared" => Some((Propagation::Shared, true)),
            "slave" => Some((Propagation::Slave, false)),
            "rslave" => Some((Propagation::Slave, true)),
            "private" => Some((Propagation::Private, false)),
            "rprivate" => Some((Propagation::Private, true)),
            "unbindable" => Some((Propagation::Unbindable, false)),
            "runbindable" => Some((Propagation::Unbindable, true)),
            _ => None,
        };
        if propagation.is_some() {
            self.propagation = propagation;
            return;
        }
        if let Some(base) = word.strip_prefix(BENEATH) {
            self.beneath = Some(base.into());
            return;
        }
        if let Some(part) = word.strip_prefix(PART) {
            self.part = Some(part.into());
            return;
        }
        if let Some(called) = word.strip_prefix(CALLED) {
            self.called = Some(called.to_owned());
            return;
        }
        match word {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            word if says_nothing(word) => {}
            // As mount(8) has it: in quotes, because a level may have commas.
            other => self.data.push(match other.strip_prefix(CONTEXT) {
                Some(label) => format!("{CONTEXT}{}", label.trim_matches('"')),
                None => other.to_owned(),
            }),
        }
    }

    /// Gives a filesystem that is the container's alone the label that its files have, unless its options say which. What
    /// shows the kernel's own objects has labels of the policy's, a bind those of its files; a message queue filesystem
    /// takes the option from nobody.
    pub fn label(&mut self, kind: &str, label: &str) {
        let kernels = matches!(
            kind,
            "proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "binfmt_misc"
        );
        let said = self.data.iter().any(|option| option.starts_with(CONTEXT));
        if self.bind.is_none() && !kernels && !said {
            self.data.push(format!("{CONTEXT}{label}"));
        }
    }

    /// A failure in the words of whoever asked for the mount.
    pub fn told(&self, reason: String) -> String {
        match &self.called {
            Some(called) => format!("{called}: {reason}"),
            None => reason,
        }
    }

    /// For a filesystem's own mount, which nothing else hangs below of.
    pub fn mount_attributes(&self) -> u64 {
        (self.set | self.set_all) & !Attributes::READ_ONLY
    }

    /// Read-only comes last, when everything inside has been made.
    pub fn read_only(&self) -> bool {
        (self.set | self.set_all) & Attributes::READ_ONLY != 0
    }
}

/// `rootfsPropagation`, and whether for the whole tree.
pub(crate) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Options::of(word).propagation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&Mount {
            options: words.iter().map(|w| (*w).to_owned()).collect(),
            ..Mount::default()
        })
    }

    #[test]
    fn words_of_the_engine_are_no_filesystems() {
        let options = parse(&[
            "rbind",
            "x-berth.beneath=/volumes/a b/_data",
            "x-berth.part=etc/a,b",
            "x-berth.called=volume shared",
        ]);
        assert_eq!(options.told("gone".to_owned()), "volume shared: gone");
        assert_eq!(parse(&[]).told("gone".to_owned()), "gone");
        assert_eq!(options.beneath, Some("/volumes/a b/_data".into()));
        assert_eq!(options.part, Some("etc/a,b".into()));
        assert!(options.data.is_empty());
    }

    #[test]
    fn a_label_is_for_what_is_the_containers_own() {
        let labelled = |kind: &str, words: &[&str]| {
            let mut options = parse(words);
            options.label(kind, "u:r:t:s0:c1,c2");
            options.data
        };
        assert_eq!(
            labelled("tmpfs", &["size=1"]),
            ["size=1", "context=u:r:t:s0:c1,c2"]
        );
        assert_eq!(
            labelled("tmpfs", &["context=\"u:r:own:s0:c3,c4\""]),
            ["context=u:r:own:s0:c3,c4"]
        );
        for kind in ["proc", "sysfs", "mqueue", "cgroup2"] {
            assert!(labelled(kind, &[]).is_empty(), "{kind}");
        }
        assert!(labelled("", &["rbind"]).is_empty());
    }

    #[test]
    fn words_become_bits() {
        let options = parse(&["nosuid", "noexec", "nodev", "ro", "size=65536k", "mode=755"]);
        assert_eq!(options.set, 0xf);
        assert_eq!(options.data, ["size=65536k", "mode=755"]);
        assert!(options.read_only());
        assert_eq!(options.mount_attributes(), 0xe);
    }

    #[test]
    fn the_later_word_wins() {
        let options = parse(&["ro", "rw", "noatime", "strictatime"]);
        assert_eq!(options.set, Attributes::STRICT_ATIME);
        assert_eq!(options.clear, Attributes::READ_ONLY | Attributes::ATIME);
    }

    #[test]
    fn recursive_words_are_kept_apart() {
        let options = parse(&["rbind", "rro", "rslave", "rnosuid"]);
        assert_eq!((options.bind, options.set), (Some(true), 0));
        assert_eq!(options.set_all, Attributes::READ_ONLY | Attributes::NO_SUID);
        assert_eq!(options.propagation, Some((Propagation::Slave, true)));
        assert_eq!(parse(&["rw", "relatime", "rrelatime"]).data, Vec::<String>::new());
    }

    #[test]
    fn bind_by_type_or_by_word() {
        let by_type = Mount {
            r#type: Some("bind".into()),
            ..Mount::default()
        };
        assert_eq!(Options::parse(&by_type).bind, Some(false));
        assert_eq!(parse(&["rbind", "bind"]).bind, Some(true));
    }
}
