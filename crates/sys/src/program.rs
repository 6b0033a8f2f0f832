//! Programs that cannot be written through.
//!
//! A process that works inside a container shows its program there as `/proc/<pid>/exe`. Whoever may look at that
//! process can open the file, keep it until nobody runs it any more, and write into it: the next container is then
//! started by the attacker's code, on the host (CVE-2019-5736). So whatever joins a container runs from a
//! [`Sealed`] program: the same file, seen through a read-only mount that is in nobody's mount namespace and so in
//! nobody's reach. No memory is copied, and all processes share the file's pages. Where such a mount cannot be
//! made, the program is copied into memory once and the copy is sealed.
//!
//! Sources: open_tree(2) and mount_setattr(2) (Linux 5.12), memfd_create(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::mount::{Attributes, Tree};

const OWN: &str = "/proc/self/exe";

/// A program to be run, out of reach of writers. Must live until what it starts has begun.
#[derive(Debug)]
pub struct Sealed {
    file: OwnedFd,
    source: PathBuf,
    /// What processes made from it are called.
    name: PathBuf,
}

impl Sealed {
    /// The program of this process, whatever has been put in its place on disk since.
    pub fn own() -> io::Result<Sealed> {
        Ok(Sealed {
            file: seal(Path::new(OWN))?,
            source: PathBuf::from(OWN),
            name: std::fs::read_link(OWN)?,
        })
    }

    pub fn of(program: &Path) -> io::Result<Sealed> {
        Ok(Sealed {
            file: seal(program)?,
            source: program.to_owned(),
            name: program.to_owned(),
        })
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        // Looked up by the child in its own copy of the descriptors, before the exec closes them.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(&self.name);
        command
    }

    /// A read-only mount of it to be put into a container, each time another one: kernels before 6.15 move such a
    /// mount instead of copying it.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        mount_of(&self.source)
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn seal(program: &Path) -> io::Result<OwnedFd> {
    mount_of(program).or_else(|_| copy_of(program))
}

fn mount_of(program: &Path) -> io::Result<OwnedFd> {
    let tree = Tree::open(rustix::fs::CWD, program, false)?;
    tree.set(
        Attributes {
            set: Attributes::READ_ONLY,
            ..Attributes::default()
        },
        false,
    )?;
    Ok(tree.into_fd())
}

fn copy_of(program: &Path) -> io::Result<OwnedFd> {
    crate::fd::sealed_memfd("program", &std::fs::read(program)?)
}

/// Whether this process runs from a sealed program.
pub fn runs_sealed() -> bool {
    let Ok(file) = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    rustix::fs::fstatvfs(&file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
        || rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// The program in a test is busy anyway; what counts is when nobody runs it any more, so a file that is not
    /// running is sealed here.
    fn write_through(seal: fn(&Path) -> io::Result<OwnedFd>) -> Option<i32> {
        let directory = tempfile::tempdir().unwrap();
        let idle = directory.path().join("program");
        std::fs::write(&idle, "program").unwrap();
        let sealed = seal(&idle).unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        let mut opening = std::fs::OpenOptions::new();
        let result = opening
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"x"));
        std::fs::read_to_string(&idle)
            .map(|text| assert_eq!(text, "program"))
            .unwrap();
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn a_sealed_program_refuses_writers() {
        assert_eq!(write_through(copy_of), Some(libc::EPERM));
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        assert_eq!(write_through(mount_of), Some(libc::EROFS));
    }

    #[test]
    fn what_it_starts_runs_under_its_name() {
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        for seal in [seal, copy_of] {
            let program = Sealed {
                file: seal(&shell).unwrap(),
                source: shell.clone(),
                name: PathBuf::from("sh"),
            };
            let output = program
                .command()
                .args(["-c", "echo $0; readlink /proc/$$/exe"])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.starts_with("sh\n"), "{text}");
            assert!(
                !text.contains(shell.to_str().unwrap()),
                "it runs from the plain file: {text}"
            );
        }
    }
}
