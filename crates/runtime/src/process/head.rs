//! What the first bytes of a program's file say about why the kernel would not execute it.
//!
//! Only read after a refusal, to explain it. The file is an image's: nothing it says is used for anything but the
//! text, what it names is shown without control characters, and a file that cannot be read is explained less well.
//! Layouts: ELF gABI (header, program headers), execve(2) for `#!`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// The largest name of an interpreter that is shown.
const MAX_NAME: usize = 256;
/// Program headers that are looked through: linkers write about a dozen.
const MAX_HEADERS: u16 = 64;
const INTERP: u32 = 3;

/// The beginning of a file, as far as it is understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// A program or library of this machine (`e_machine`), with the loader it names.
    Elf {
        machine: u16,
        loader: Option<String>,
    },
    /// A text whose first line names its interpreter.
    Script {
        interpreter: String,
    },
    Other,
}

impl Head {
    pub(super) fn of(path: &Path) -> Head {
        // Not to wait for anybody, should it be a pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(file) => Head::read(&File::from(file)),
            Err(_) => Head::Other,
        }
    }

    fn read(mut file: &File) -> Head {
        let mut head = Vec::new();
        if file.by_ref().take(512).read_to_end(&mut head).is_err() {
            return Head::Other;
        }
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let text = String::from_utf8_lossy(line);
            return Head::Script {
                interpreter: shown(text.split_ascii_whitespace().next().unwrap_or_default(), &text),
            };
        }
        if !head.starts_with(b"\x7fELF") {
            return Head::Other;
        }
        let little = head.get(5) != Some(&2);
        let number = |at: usize| -> Option<u16> {
            let bytes = head.get(at..at + 2)?.try_into().ok()?;
            Some(if little {
                u16::from_le_bytes(bytes)
            } else {
                u16::from_be_bytes(bytes)
            })
        };
        let Some(machine) = number(18) else {
            return Head::Other;
        };
        // The loader matters where the machine is ours, whose programs are 64 bits wide and little-endian.
        let wide = head.get(4) == Some(&2) && little;
        let loader = if wide { loader(file, &head) } else { None };
        Head::Elf { machine, loader }
    }

    /// Why it is not a program here.
    pub(super) fn foreign(&self) -> String {
        let own = std::env::consts::ARCH;
        match self {
            Head::Elf { machine, .. } if name(*machine) != Some(own) => {
                let theirs = name(*machine).map_or_else(|| format!("machine {machine}"), str::to_owned);
                format!(
                    "the file is for {theirs} and this host is {own}: get the image for this platform, see --platform"
                )
            }
            Head::Elf { .. } => "the file is damaged".to_owned(),
            Head::Script { .. } => "its interpreter is no program".to_owned(),
            Head::Other => "the file is no program; a script needs a first line like #!/bin/sh".to_owned(),
        }
    }

    /// Why the kernel found no file though this one is there.
    pub(super) fn incomplete(&self) -> String {
        match self {
            Head::Script { interpreter } => format!("its interpreter {interpreter} is missing"),
            Head::Elf {
                loader: Some(loader), ..
            } => format!("its loader {loader} is missing"),
            _ => "the interpreter or loader that the file names is missing".to_owned(),
        }
    }
}

/// A carriage return at the end, as editors on Windows write it, is the commonest reason for a missing interpreter.
fn shown(word: &str, line: &str) -> String {
    let hint = if line.ends_with('\r') {
        " (the line ends in a carriage return)"
    } else {
        ""
    };
    let word: String = word.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    format!("{word}{hint}")
}

/// PT_INTERP of a 64-bit little-endian file.
fn loader(file: &File, head: &[u8]) -> Option<String> {
    let start = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    let size = u16::from_le_bytes(head.get(54..56)?.try_into().ok()?);
    let count = u16::from_le_bytes(head.get(56..58)?.try_into().ok()?).min(MAX_HEADERS);
    for index in 0..count {
        let mut header = [0; 40];
        let at = start.checked_add(u64::from(index) * u64::from(size))?;
        file.read_exact_at(&mut header, at).ok()?;
        if u32::from_le_bytes(header.get(..4)?.try_into().ok()?) != INTERP {
            continue;
        }
        let at = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
        let length = u64::from_le_bytes(header.get(32..40)?.try_into().ok()?);
        let mut text = vec![0; usize::try_from(length).ok()?.min(MAX_NAME)];
        file.read_exact_at(&mut text, at).ok()?;
        let text = String::from_utf8_lossy(&text);
        return Some(shown(text.trim_end_matches('\0'), ""));
    }
    None
}

/// Machines by the names Rust and the kernel have for them.
fn name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "x86",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn head(bytes: &[u8]) -> Head {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Head::of(file.path())
    }

    #[test]
    fn files_say_what_they_are_for() {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 183;
        let foreign = head(&elf).foreign();
        assert!(
            foreign.starts_with("the file is for aarch64 and this host is "),
            "{foreign}"
        );
        elf[5] = 2;
        elf[18..20].copy_from_slice(&22u16.to_be_bytes());
        assert!(head(&elf).foreign().contains("s390x"));
        assert_eq!(head(b"words"), Head::Other);
        assert_eq!(head(b""), Head::Other);
        assert_eq!(head(b"\x7fELF"), Head::Other);
        assert_eq!(Head::of(Path::new("/no/such")), Head::Other);
    }

    #[test]
    fn interpreters_are_named() {
        let text = head(b"#! /no/such -x\n").incomplete();
        assert_eq!(text, "its interpreter /no/such is missing");
        let text = head(b"#!/bin/sh\r\necho\r\n").incomplete();
        assert!(
            text.contains("/bin/sh (the line ends in a carriage return)"),
            "{text}"
        );
        // The test itself is a program with a loader, unless it was linked statically.
        let own = Head::of(Path::new("/proc/self/exe"));
        assert!(matches!(own, Head::Elf { .. }), "{own:?}");
    }

    #[test]
    fn the_loader_of_a_program_is_read() {
        let mut elf = vec![0; 200];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 3;
        elf[72] = 120;
        elf[96] = 10;
        elf[120..130].copy_from_slice(b"/lib/ld.so");
        let text = head(&elf).incomplete();
        assert_eq!(text, "its loader /lib/ld.so is missing");
        // A table that leads nowhere is not followed.
        elf[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(
            head(&elf),
            Head::Elf {
                machine: 62,
                loader: None
            }
        );
    }
}
