//! Objects whose content is not what their name says any more.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::hold::{is_damaged, look};
use super::name::Name;
use super::{HOLDS, Objects, open_if_there};
use crate::failure::{Context, PathError};
use crate::stop::Stop;

/// Step of reading content.
pub(super) const BUFFER: usize = 256 * 1024;

impl Objects {
    /// Reads every object; those that are damaged, by name. `stop` ends it.
    pub(crate) fn damaged(&self, stop: &Stop<'_>) -> Result<Vec<String>, PathError> {
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
            if is_damaged(&files, &name, key, &mut buffer, stop).at("read", &self.files())? {
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
}
