//! From `process.args[0]` to the program's file, as the user and inside the root, and what a failed exec means.
//!
//! A name with a slash is that file; one without is looked for along the PATH of the process's environment. The
//! wording follows what the field's clients match on.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::environment;
use super::head::Head;
use crate::error::LaunchError;

pub(crate) fn find(program: &str, env: &[String]) -> Result<PathBuf, LaunchError> {
    if program.contains('/') {
        let path = Path::new(program);
        return match executable(path) {
            Ok(()) => Ok(path.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(LaunchError::ExecNotFound {
                program: program.to_owned(),
                in_path: false,
            }),
            Err(error) => Err(not_executable(program, error)),
        };
    }
    if !program.is_empty() {
        for directory in environment::get(env, "PATH").unwrap_or_default().split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            let path = Path::new(directory).join(program);
            if executable(&path).is_ok() {
                return Ok(path);
            }
        }
    }
    Err(LaunchError::ExecNotFound {
        program: program.to_owned(),
        in_path: true,
    })
}

fn executable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A kernel before 5.8 cannot ask for the effective user; the exec will tell.
        Err(Errno::NOSYS | Errno::INVAL) => Ok(()),
        other => other,
    }
}

fn not_executable(program: &str, error: Errno) -> LaunchError {
    LaunchError::ExecNotExecutable {
        program: program.to_owned(),
        reason: crate::error::reason(&error.into()),
    }
}

/// What the kernel's refusal to execute `path` means.
pub(crate) fn explain(program: &str, path: &Path, error: &io::Error) -> LaunchError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOEXEC) => LaunchError::ExecFormat {
            program: program.to_owned(),
            why: Head::of(path).foreign(),
        },
        // The file was found a moment ago.
        Some(Errno::NOENT) if path.exists() => LaunchError::ExecInterpreter {
            program: program.to_owned(),
            why: Head::of(path).incomplete(),
        },
        Some(Errno::NOENT) => LaunchError::ExecNotFound {
            program: program.to_owned(),
            in_path: false,
        },
        Some(errno @ (Errno::ACCESS | Errno::PERM | Errno::ISDIR)) => not_executable(program, errno),
        _ => LaunchError::Setup {
            step: format!("exec {program}"),
            reason: crate::error::reason(error),
            errno: error.raw_os_error(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(path: &str) -> Vec<String> {
        vec![format!("PATH={path}")]
    }

    #[test]
    fn along_the_path() {
        assert_eq!(
            find("sh", &env("/nonexistent:/bin")).unwrap(),
            Path::new("/bin/sh")
        );
        let error = find("nosuch", &env("/bin")).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"exec: "nosuch": executable file not found in $PATH"#
        );
        assert!(find("sh", &[]).is_err());
        assert!(find("", &env("/bin")).is_err());
    }

    #[test]
    fn by_its_path() {
        assert_eq!(find("/bin/sh", &[]).unwrap(), Path::new("/bin/sh"));
        let text = |program: &str| find(program, &[]).unwrap_err().to_string();
        assert_eq!(text("/etc"), r#"exec: "/etc": is a directory"#);
        assert_eq!(text("/etc/passwd"), r#"exec: "/etc/passwd": permission denied"#);
        assert_eq!(
            text("/no/such"),
            r#"exec: "/no/such": stat /no/such: no such file or directory"#
        );
    }
}
