//! Why a process could not be made, in words that reach the user.
//!
//! The child that is to become the container's process meets most failures; it sends them over the handshake,
//! so the type travels as JSON and keeps text instead of sources. Where the field has a wording that clients
//! match on ("executable file not found in $PATH", "chdir to cwd"), it is used as it is.

use std::io;

use serde::{Deserialize, Serialize};
use spec::ErrorClass;

/// A container or an additional process was not started. Nothing of it is left running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LaunchError {
    /// The program has no file.
    #[error("exec: {program:?}: {}", if *.in_path { "executable file not found in $PATH".to_owned() } else { format!("stat {program}: no such file or directory") })]
    ExecNotFound { program: String, in_path: bool },
    /// There is a file, but this user may not execute it, or it is a directory.
    #[error("exec: {program:?}: {reason}")]
    ExecNotExecutable { program: String, reason: String },
    /// The file is a program for another machine, or not a program.
    #[error("exec {program}: exec format error ({why})")]
    ExecFormat { program: String, why: String },
    /// The file is there, the interpreter that it names is not.
    #[error("exec {program}: no such file or directory ({why})")]
    ExecInterpreter { program: String, why: String },
    #[error("chdir to cwd ({path:?}) set in config.json failed: {reason}")]
    WorkingDirectory { path: String, reason: String },
    #[error("error mounting {source_name:?} to rootfs at {destination:?}: {reason}")]
    Mount {
        source_name: String,
        destination: String,
        reason: String,
    },
    /// The machine, or what this engine was started with, does not allow the limit.
    #[error(
        "error setting rlimit {name}: {reason} (asked for soft {soft}, hard {hard}; this host allows at most {maximum})"
    )]
    Limit {
        name: String,
        soft: u64,
        hard: u64,
        maximum: u64,
        reason: String,
    },
    #[error("{hook} hook {path:?}: {reason}")]
    Hook {
        hook: String,
        path: String,
        reason: String,
    },
    /// `config.json` asks for something that makes no sense.
    #[error("invalid configuration: {0}")]
    Invalid(String),
    /// `config.json` asks for something this runtime does not do.
    #[error("not supported: {0}")]
    Unsupported(String),
    #[error("{step}: {reason}")]
    Setup {
        step: String,
        reason: String,
        errno: Option<i32>,
    },
    #[error("cgroup: {0}")]
    Cgroup(String),
    #[error("the container's process ended while it was being set up ({how})")]
    Died { how: String },
    #[error("the handshake with the container's process broke: {0}")]
    Handshake(String),
}

impl LaunchError {
    /// What a shell, and `docker run`, would exit with: 127 not found, 126 not executable, 125 anything else.
    pub fn exit_code(&self) -> i32 {
        match self {
            LaunchError::ExecNotFound { .. } | LaunchError::ExecInterpreter { .. } => 127,
            LaunchError::ExecNotExecutable { .. } | LaunchError::ExecFormat { .. } => 126,
            _ => 125,
        }
    }

    pub fn class(&self) -> ErrorClass {
        match self {
            LaunchError::ExecNotFound { .. }
            | LaunchError::ExecNotExecutable { .. }
            | LaunchError::ExecFormat { .. }
            | LaunchError::ExecInterpreter { .. }
            | LaunchError::WorkingDirectory { .. }
            | LaunchError::Mount { .. }
            | LaunchError::Limit { .. }
            | LaunchError::Invalid(_) => ErrorClass::Invalid,
            LaunchError::Unsupported(_) => ErrorClass::NotImplemented,
            LaunchError::Setup { .. }
            | LaunchError::Hook { .. }
            | LaunchError::Cgroup(_)
            | LaunchError::Died { .. }
            | LaunchError::Handshake(_) => ErrorClass::Internal,
        }
    }
}

/// The kernel's words for an error, as the field writes them: without a number, in lower case.
pub(crate) fn reason(error: &io::Error) -> String {
    let mut text = error.to_string();
    let number = text.find(" (os error ").and_then(|start| {
        let length = text.get(start..)?.find(')')?;
        Some(start..=start + length)
    });
    if let Some(number) = number {
        // What the kernel had to say comes after it.
        text.replace_range(number, "");
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_lowercase();
        }
    }
    text
}

/// Names the step that failed.
pub(crate) trait During<T> {
    fn during(self, step: &str) -> Result<T, LaunchError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &str) -> Result<T, LaunchError> {
        self.map_err(|error| {
            let error = error.into();
            LaunchError::Setup {
                step: step.to_owned(),
                reason: reason(&error),
                errno: error.raw_os_error(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording_and_exit_codes() {
        let missing = LaunchError::ExecNotFound {
            program: "nosuch".into(),
            in_path: true,
        };
        assert_eq!(
            missing.to_string(),
            r#"exec: "nosuch": executable file not found in $PATH"#
        );
        assert_eq!(missing.exit_code(), 127);
        let absolute = LaunchError::ExecNotFound {
            program: "/no".into(),
            in_path: false,
        };
        assert_eq!(
            absolute.to_string(),
            r#"exec: "/no": stat /no: no such file or directory"#
        );
        let denied = LaunchError::ExecNotExecutable {
            program: "/etc".into(),
            reason: "is a directory".into(),
        };
        assert_eq!(
            (denied.to_string().as_str(), denied.exit_code()),
            (r#"exec: "/etc": is a directory"#, 126)
        );
        let setup: LaunchError = Err::<(), _>(rustix::io::Errno::ACCESS)
            .during("step")
            .unwrap_err();
        assert_eq!(setup.to_string(), "step: permission denied");
        let told = io::Error::other("tmpfs filesystem: Invalid argument (os error 22) (kernel: Bad value)");
        assert_eq!(
            reason(&told),
            "tmpfs filesystem: Invalid argument (kernel: Bad value)"
        );
    }
}
