//! Why a command may have failed, where the files say more than its exit code.
//!
//! Looked for are the causes that cost most time: a script with Windows line ends, an interpreter or a loader that the
//! image lacks, a program for another processor, a shell that is not there. All of it is read beneath the step's root,
//! bounded, and nothing is said where nothing is sure.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sys::beneath::resolve_in_root;

use super::root;

/// How much of a file is looked at.
const HEAD: u64 = 4096;
/// How many words of a command are looked up.
const MAX_WORDS: usize = 64;
/// Exit codes that say that a program could not be started.
const NOT_STARTED: std::ops::RangeInclusive<i32> = 126..=127;
/// The exit code of a process that was killed.
const KILLED: i32 = 137;

/// What may have made `args`, run in `cwd`, end with `code`.
pub fn hints(root: BorrowedFd<'_>, args: &[String], cwd: &str, code: i32) -> Vec<String> {
    let mut hints = Vec::new();
    if code == KILLED {
        hints.push(
            "the command was killed: if nobody did that, it ran out of memory (--memory gives it more)"
                .to_owned(),
        );
    }
    let Some(program) = args.first() else {
        return hints;
    };
    if NOT_STARTED.contains(&code) && program.starts_with('/') && !exists(root, Path::new(program)) {
        hints.push(match program.ends_with("sh") {
            true => format!(
                "the image has no {program}: use the list form RUN [\"program\", \"argument\"], or another base"
            ),
            false => format!("the image has no file {program}"),
        });
        return hints;
    }
    for word in words(args).take(MAX_WORDS) {
        let path = match word.starts_with('/') {
            true => PathBuf::from(&word),
            false if word.contains('/') || args.len() == 1 => Path::new(cwd).join(&word),
            false => continue,
        };
        if let Some(hint) = of_file(root, &path, NOT_STARTED.contains(&code))
            && !hints.contains(&hint)
        {
            hints.push(hint);
        }
    }
    hints
}

/// Everything in a command that could name a file.
fn words(args: &[String]) -> impl Iterator<Item = String> + '_ {
    let separate = |c: char| c.is_whitespace() || ";&|()<>\"'`".contains(c);
    args.iter()
        .flat_map(move |arg| arg.split(separate))
        .filter(|word| !word.is_empty() && !word.starts_with('-'))
        .map(str::to_owned)
}

fn exists(root: BorrowedFd<'_>, path: &Path) -> bool {
    matches!(root::stat_in(root, &root::clean(path)), Ok(Some(_)))
}

fn head(root: BorrowedFd<'_>, path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(resolve_in_root(root, root::clean(path), flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(HEAD).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What is wrong with a program or script. `not_started` says that something could not be started at all.
fn of_file(root: BorrowedFd<'_>, path: &Path, not_started: bool) -> Option<String> {
    let bytes = head(root, path)?;
    let shown = path.display();
    if let Some(rest) = bytes.strip_prefix(b"#!") {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.ends_with(b"\r") {
            return Some(format!(
                "{shown} has Windows line ends, so its interpreter is not found: convert it (dos2unix, or \
                 .gitattributes with eol=lf)"
            ));
        }
        let line = String::from_utf8_lossy(line);
        let interpreter = line.split_whitespace().next()?;
        let missing = interpreter.starts_with('/') && !exists(root, Path::new(interpreter));
        return missing.then(|| {
            format!("{shown} wants to be run by {interpreter}, which the image does not have: install it")
        });
    }
    if !bytes.starts_with(b"\x7fELF") {
        let carriage = not_started && bytes.windows(2).any(|pair| pair == b"\r\n");
        let text = std::str::from_utf8(&bytes).is_ok();
        return (carriage && text).then(|| format!("{shown} has Windows line ends: convert it (dos2unix)"));
    }
    let machine = u16::from_le_bytes([*bytes.get(18)?, *bytes.get(19)?]);
    let own = own_machine();
    if own.is_some_and(|own| own != machine) {
        return Some(format!(
            "{shown} is a program for {}, and this is a build for {}: choose the platform with --platform",
            machine_name(machine),
            std::env::consts::ARCH
        ));
    }
    let loader = loader(&bytes)?;
    (not_started && !exists(root, Path::new(&loader))).then(|| {
        format!("{shown} needs the loader {loader}, which the image does not have: it is built for another C library")
    })
}

/// The ELF number of this machine's processor.
fn own_machine() -> Option<u16> {
    Some(match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        "riscv64" => 243,
        "arm" => 40,
        "x86" => 3,
        "s390x" => 22,
        "powerpc64" => 21,
        _ => return None,
    })
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "386".to_owned(),
        21 => "ppc64le".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("another processor (ELF machine {other})"),
    }
}

/// The dynamic loader that a 64-bit little-endian program asks for.
fn loader(bytes: &[u8]) -> Option<String> {
    const INTERPRETER: u32 = 3;
    let word = |at: usize, size: usize| -> Option<u64> {
        let mut value = [0; 8];
        value
            .get_mut(..size)?
            .copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(value))
    };
    let place = |value: u64| usize::try_from(value).ok();
    if bytes.get(4) != Some(&2) || bytes.get(5) != Some(&1) {
        return None;
    }
    let (table, size, count) = (place(word(32, 8)?)?, place(word(54, 2)?)?, place(word(56, 2)?)?);
    for index in 0..count.min(64) {
        let at = table.checked_add(index.checked_mul(size)?)?;
        if word(at, 4)? == u64::from(INTERPRETER) {
            let (from, length) = (
                place(word(at.checked_add(8)?, 8)?)?,
                place(word(at.checked_add(32)?, 8)?)?,
            );
            let text = bytes.get(from..from.checked_add(length)?)?;
            return Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn found(files: &[(&str, &[u8])], args: &[&str], code: i32) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let root = File::open(dir.path()).unwrap();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        hints(root.as_fd(), &args, "/w", code)
    }

    const SHELL: (&str, &[u8]) = ("bin/sh", b"");

    #[test]
    fn line_ends() {
        let script: (&str, &[u8]) = ("w/run.sh", b"#!/bin/sh\r\necho\r\n");
        for args in [&["/bin/sh", "-c", "cd x && ./run.sh"][..], &["/w/run.sh"]] {
            let hints = found(&[SHELL, script], args, 127);
            assert!(hints[0].contains("run.sh has Windows line ends"), "{hints:?}");
        }
    }

    #[test]
    fn what_is_missing() {
        let script: (&str, &[u8]) = ("s", b"#!/usr/bin/python3 -u\n");
        let hints = found(&[SHELL, script], &["/s"], 127);
        assert!(hints[0].contains("run by /usr/bin/python3"), "{hints:?}");
        let hints = found(&[], &["/bin/sh", "-c", "x"], 127);
        assert!(hints[0].contains("the image has no /bin/sh"), "{hints:?}");
        let hints = found(&[SHELL], &["/nosuch"], 127);
        assert_eq!(hints, ["the image has no file /nosuch"]);
        assert_eq!(
            found(&[SHELL], &["/bin/sh", "-c", "false"], 1),
            Vec::<String>::new()
        );
        assert!(found(&[SHELL], &["/bin/sh"], 137)[0].contains("memory"));
    }

    #[test]
    fn programs_of_other_machines() {
        let mut program = std::fs::read("/proc/self/exe").unwrap();
        program.truncate(HEAD as usize);
        assert_eq!(found(&[("p", &program)], &["/p"], 126), Vec::<String>::new());
        program[18..20].copy_from_slice(&0x1234u16.to_le_bytes());
        let hints = found(&[("p", &program)], &["/p"], 126);
        assert!(hints[0].contains("another processor"), "{hints:?}");
        program.truncate(19);
        assert_eq!(found(&[("p", &program)], &["/p"], 126), Vec::<String>::new());
    }

    #[test]
    fn foreign_bytes_do_no_harm() {
        let mut program = std::fs::read("/proc/self/exe").unwrap();
        program.truncate(HEAD as usize);
        for at in 0..64 {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut broken = program.clone();
                broken[at] = value;
                found(&[("p", &broken)], &["/p"], 127);
            }
        }
    }
}
