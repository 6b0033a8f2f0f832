//! Objects whose content is not what their name says any more.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::hold::{is_damaged, look};
use super::name::Name;
use super::{HOLDS, Objects, open_if_there};
use crate::failure::{Context, PathError};

const BUFFER: usize = 256 * 1024;

impl Objects {
    /// Reads every object; those that are damaged, by name. `stop` is asked before each.
    pub(crate) fn damaged(&self, stop: &dyn Fn() -> bool) -> Result<Vec<String>, PathError> {
        let Some(files) = self.open_files().at("open", &self.files())? else {
            return Ok(Vec::new());
        };
        let key = self.key()?;
        let mut names = Vec::new();
        self.each(|name, _| names.extend(Name::parse(name.as_bytes())))
            .at("read", &self.files())?;
        let mut buffer = vec![0; BUFFER];
        let mut damaged = Vec::new();
        for name in names {
            if stop() {
                break;
            }
            if is_damaged(&files, &name, key, &mut buffer).at("read", &self.files())? {
                damaged.push(name.as_str().to_owned());
            }
        }
        Ok(damaged)
    }

    /// Whether the layer in `home` has the object.
    pub(crate) fn is_held(&self, home: &Path, name: &str) -> io::Result<bool> {
        match open_if_there(&home.join(HOLDS))? {
            Some(holds) => Ok(look(holds.as_fd(), name)?.is_some()),
            None => Ok(false),
        }
    }

    /// Takes the name from a damaged object: the next layer that has the file brings it anew, for the others, too.
    pub(crate) fn take_name(&self, name: &str) -> Result<(), PathError> {
        let taken = || -> io::Result<()> {
            let name = Name::parse(name.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
            let Some(files) = self.open_files()? else {
                return Ok(());
            };
            match unlinkat(&files, name.path(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        // Looked at again: it may have been replaced since it was found.
        let key = self.key()?;
        let _gate = self.gate();
        let still = match (
            Name::parse(name.as_bytes()),
            self.open_files().at("open", &self.files())?,
        ) {
            (Some(name), Some(files)) => {
                is_damaged(&files, &name, key, &mut vec![0; BUFFER]).at("read", &self.files())?
            }
            _ => false,
        };
        match still {
            true => taken().at("take the name from a damaged file in", &self.files()),
            false => Ok(()),
        }
    }
}
