//! Lines of a terminal that change in place.
//!
//! The cursor rests at the beginning of the line below the last one. A line changes by going up to it, writing it anew
//! and coming back; a line that has left the top of the screen stays as it is. A text without a place of its own ends
//! the block: what comes later begins a new one below. No line is wider than the terminal, since one that wraps would
//! take two rows.

use crate::failure::Failure;
use std::io::{ErrorKind, Write};

pub struct Live<W> {
    out: W,
    lines: Vec<(String, String)>,
    /// The last text did not end its line.
    open: bool,
}

impl<W: Write> Live<W> {
    pub fn new(out: W) -> Live<W> {
        Live {
            out,
            lines: Vec::new(),
            open: false,
        }
    }

    /// Text that stays.
    pub fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.lines.clear();
        if !text.is_empty() {
            self.open = !text.ends_with('\n');
        }
        self.write(text)
    }

    /// The line of `id`, on a terminal of so many rows and columns.
    pub fn set(&mut self, id: &str, text: &str, size: Option<(u16, u16)>) -> Result<(), Failure> {
        let (rows, columns) = size.map_or((24, 80), |(rows, columns)| {
            (usize::from(rows), usize::from(columns))
        });
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(columns.saturating_sub(1))
            .collect();
        let at = self.lines.iter().position(|(known, _)| known == id);
        let Some(at) = at else {
            let begin = if std::mem::take(&mut self.open) { "\n" } else { "" };
            let line = format!("{begin}{text}\n");
            self.lines.push((id.to_owned(), text));
            return self.write(&line);
        };
        let up = self.lines.len() - at;
        let unchanged = self.lines.get(at).is_some_and(|(_, shown)| *shown == text);
        if unchanged || up >= rows {
            return Ok(());
        }
        let step = format!("\x1b[{up}A\r\x1b[2K{text}\r\x1b[{up}B");
        if let Some((_, shown)) = self.lines.get_mut(at) {
            *shown = text;
        }
        self.write(&step)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        match self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
        {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::code(0)),
            Err(error) => Err(Failure::text(format!("write: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_change_in_place() {
        let mut live = Live::new(Vec::new());
        let size = Some((4, 12));
        live.set("a", "a: one", size).unwrap();
        live.set("b", "b: much too long", size).unwrap();
        live.set("a", "a: two", size).unwrap();
        live.set("a", "a: two", size).unwrap();
        live.say("between\n").unwrap();
        live.set("a", "a: three", size).unwrap();
        assert_eq!(
            String::from_utf8(live.out).unwrap(),
            "a: one\nb: much too\n\x1b[2A\r\x1b[2Ka: two\r\x1b[2Bbetween\na: three\n"
        );
    }

    #[test]
    fn what_left_the_screen_stays() {
        let mut live = Live::new(Vec::new());
        for id in ["a", "b", "c"] {
            live.set(id, id, Some((3, 80))).unwrap();
        }
        live.set("a", "unseen", Some((3, 80))).unwrap();
        live.set("b", "seen", Some((3, 80))).unwrap();
        assert_eq!(
            String::from_utf8(live.out).unwrap(),
            "a\nb\nc\n\x1b[2A\r\x1b[2Kseen\r\x1b[2B"
        );
    }
}
