//! From the tar of a layer and its directory to the pieces of a recipe.
//!
//! The archive is read once; the bytes between the contents of files are passed on as they came. A file that the layer does
//! not have with that length (a later entry replaced it, it has a map of holes) is taken as it is. Whether a file has the
//! same content is not looked at: following the recipe tells.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use super::RecipeError;
use super::pieces::Pieces;
use crate::layer::tar::{Kind, Reader};
use crate::layer::{Files, LayerError, clean};

/// Most bytes between two files: extended headers are bounded, and what else is so long is nothing to save.
const WINDOW: usize = 16 << 20;
const BUFFER: usize = 256 << 10;

/// How an archive was taken apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Bytes that come from files of the layer.
    pub files: u64,
    /// Bytes that are in the recipe.
    pub own: u64,
}

/// Takes `tar` apart. `give_up` is asked after each entry, with what was found so far.
pub(super) fn split(
    tar: impl Read,
    files: &Files,
    pieces: &mut Pieces<impl Write>,
    give_up: &dyn Fn(&Split) -> bool,
) -> Result<Option<Split>, RecipeError> {
    let window = Rc::new(RefCell::new(Window::default()));
    let mut reader = Reader::new(Tap {
        inner: tar,
        window: Rc::clone(&window),
    });
    let mut split = Split::default();
    let mut buffer = vec![0; BUFFER];
    // What was read up to `end` and not passed on is the recipe's own.
    let pass_on = |split: &mut Split, pieces: &mut Pieces<_>, end: u64| -> Result<(), RecipeError> {
        let bytes = window.borrow_mut().take_to(end);
        split.own += bytes.len() as u64;
        pieces.bytes(&bytes).map_err(RecipeError::Write)
    };
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) => return Err(RecipeError::Broken("the archive cannot be read")),
        };
        pass_on(&mut split, pieces, reader.position())?;
        if give_up(&split) {
            return Ok(None);
        }
        if entry.kind != Kind::File || entry.size == 0 || entry.chunks.is_some() {
            continue;
        }
        let path =
            clean(&entry.path).map_err(|_: LayerError| RecipeError::Broken("a name that is refused"))?;
        let file = files.file(&path).map_err(RecipeError::Read)?;
        let referred = file.is_some_and(|(_, size)| size == entry.size);
        if referred {
            pieces.file(&path, entry.size).map_err(RecipeError::Write)?;
            split.files += entry.size;
        }
        loop {
            let read = match reader.content().read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(RecipeError::Read(error)),
            };
            let position = reader.position();
            match (read, referred) {
                (0, _) => break,
                (_, true) => drop(window.borrow_mut().take_to(position)),
                (_, false) => pass_on(&mut split, pieces, position)?,
            }
        }
    }
    reader
        .drain()
        .map_err(|_| RecipeError::Broken("the archive cannot be read"))?;
    pass_on(&mut split, pieces, reader.position())?;
    Ok(Some(split))
}

/// What was read of the archive and not passed on.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn take_to(&mut self, end: u64) -> Vec<u8> {
        let length = usize::try_from(end.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.bytes.split_off(length.min(self.bytes.len()));
        let taken = std::mem::replace(&mut self.bytes, rest);
        self.start += taken.len() as u64;
        taken
    }
}

/// Keeps what goes through.
struct Tap<R> {
    inner: R,
    window: Rc<RefCell<Window>>,
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut window = self.window.borrow_mut();
        if window.bytes.len() > WINDOW {
            return Err(io::Error::other("too much between two files"));
        }
        window
            .bytes
            .extend_from_slice(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
