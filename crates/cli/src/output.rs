//! Where `save` and `export` write: stdout, or a file that appears under its name only when it is complete.

use crate::failure::Failure;
use crate::terminal;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Opens where an archive goes. It appears under its name only when it is complete.
pub enum Output {
    Stdout,
    File { temporary: Pending, file: std::fs::File },
}

/// A file beside the target, renamed when complete and removed otherwise.
pub struct Pending {
    path: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Output {
    /// `None` is stdout, which must not be a terminal.
    pub fn open(target: Option<&str>) -> Result<Output, Failure> {
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            if terminal::stdout_is_terminal() {
                return Err(Failure::text(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            return Ok(Output::Stdout);
        };
        let target = Path::new(target);
        let failed = |error: std::io::Error| {
            Failure::text(format!(
                "invalid output path: {}: {}",
                target.display(),
                crate::grammar::env::describe(&error)
            ))
        };
        // A device or pipe is written in place.
        if std::fs::metadata(target).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(target)
                .map_err(failed)?;
            let temporary = Pending {
                path: target.into(),
                target: target.into(),
                kept: true,
            };
            return Ok(Output::File { temporary, file });
        }
        if target.is_dir() {
            return Err(Failure::text(format!(
                "invalid output path: {}: is a directory",
                target.display()
            )));
        }
        let name = target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let path = target.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = std::fs::File::create_new(&path).map_err(failed)?;
        Ok(Output::File {
            temporary: Pending {
                path,
                target: target.into(),
                kept: false,
            },
            file,
        })
    }

    pub fn writer(&mut self) -> Box<dyn Write + '_> {
        match self {
            Output::Stdout => Box::new(std::io::stdout().lock()),
            Output::File { file, .. } => Box::new(file),
        }
    }

    /// Puts the complete file under its name.
    pub fn keep(self) -> Result<(), Failure> {
        if let Output::File { mut temporary, .. } = self
            && temporary.path != temporary.target
        {
            std::fs::rename(&temporary.path, &temporary.target).map_err(|error| {
                Failure::text(format!("cannot write {}: {error}", temporary.target.display()))
            })?;
            temporary.kept = true;
        }
        Ok(())
    }
}
