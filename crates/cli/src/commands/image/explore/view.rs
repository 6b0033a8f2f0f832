//! The view of `image explore`: layers above, the tree that the chosen layer makes or changes below.
//!
//! ```text
//!  layers of sha256:…   12.3MB in 4 layers, 1.2MB wasted
//!  >  0   8.1MB  +120 ~0 -0   ADD rootfs.tar /
//!     1    50kB  +3 ~1 -2     RUN …
//!  ─────────────────────────────────────────────
//!  ▾ etc/
//!    C passwd (644 0:0 1.2kB)
//!  ↑↓ move  ←→ close, open  tab other half  w wasted  q quit
//! ```
//!
//! [`View`] is plain data: a key changes it, and it draws itself as lines for a size. Only [`run`] knows the terminal,
//! which it leaves as it found it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write, stdin, stdout};

use super::{bytes, letter, line, step, waste};
use crate::format::printable;
use crate::json::Value;
use crate::terminal::{self, Raw};

/// Characters of an ID with its algorithm that tell it from others.
const SHORT_ID: usize = "sha256:".len() + 12;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Up,
    Down,
    Left,
    Right,
    Page(i8),
    Tab,
    Wasted,
    Quit,
}

/// A directory or an entry of the tree below.
#[derive(Default)]
struct Node {
    /// As it is shown, if the layer does something to it itself.
    shown: Option<String>,
    children: BTreeMap<String, Node>,
}

/// A line of the lower half.
struct Row {
    path: String,
    text: String,
    directory: bool,
}

struct View<'a> {
    contents: &'a Value,
    layer: usize,
    /// The line chosen below.
    row: usize,
    closed: BTreeSet<String>,
    /// The keys move in the upper half.
    upper: bool,
    wasted: bool,
    tree: Node,
}

impl<'a> View<'a> {
    fn new(contents: &'a Value) -> View<'a> {
        let mut view = View {
            contents,
            layer: 0,
            row: 0,
            closed: BTreeSet::new(),
            upper: true,
            wasted: false,
            tree: Node::default(),
        };
        view.choose(0);
        view
    }

    fn layers(&self) -> &'a [Value] {
        self.contents.at(&["Layers"]).items()
    }

    fn choose(&mut self, layer: usize) {
        self.layer = layer.min(self.layers().len().saturating_sub(1));
        self.row = 0;
        self.closed.clear();
        self.tree = Node::default();
        let entries = self
            .layers()
            .get(self.layer)
            .map(|layer| layer.at(&["Entries"]).items());
        for entry in entries.unwrap_or_default() {
            let path = entry.at(&["Path"]).text();
            let mut node = &mut self.tree;
            for part in path.split('/').filter(|part| !part.is_empty()) {
                node = node.children.entry(part.to_owned()).or_default();
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            // The path is cut to the name: the tree shows the rest.
            let whole = line(entry);
            let shown = whole.replacen(&printable(path), &printable(name), 1);
            debug_assert!(shown.starts_with(letter(entry)));
            node.shown = Some(shown);
        }
    }

    /// The lines of the lower half, as far as directories are open.
    fn rows(&self) -> Vec<Row> {
        if self.wasted {
            let files = self.contents.at(&["Wasted"]).items().iter();
            return files
                .map(|file| Row {
                    path: String::new(),
                    text: waste(file),
                    directory: false,
                })
                .collect();
        }
        let mut rows = Vec::new();
        self.collect(&self.tree, "", 0, &mut rows);
        rows
    }

    fn collect(&self, node: &Node, at: &str, depth: usize, rows: &mut Vec<Row>) {
        for (name, child) in &node.children {
            let path = format!("{at}/{name}");
            let directory = !child.children.is_empty();
            let open = directory && !self.closed.contains(&path);
            let mark = match (directory, open) {
                (true, true) => '▾',
                (true, false) => '▸',
                _ => ' ',
            };
            let text = child
                .shown
                .clone()
                .unwrap_or_else(|| format!("  {}/", printable(name)));
            rows.push(Row {
                text: format!("{}{mark} {text}", "  ".repeat(depth)),
                path: path.clone(),
                directory,
            });
            if open {
                self.collect(child, &path, depth + 1, rows);
            }
        }
    }

    /// False ends the view.
    fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit => return false,
            Key::Tab => self.upper = !self.upper,
            Key::Wasted => {
                self.wasted = !self.wasted;
                self.upper = false;
                self.row = 0;
            }
            Key::Up if self.upper => self.choose(self.layer.saturating_sub(1)),
            Key::Down if self.upper => self.choose(self.layer + 1),
            Key::Up => self.row = self.row.saturating_sub(1),
            Key::Down => self.row += 1,
            Key::Page(pages) => {
                let step = usize::from(pages.unsigned_abs()) * 10;
                self.row = match pages < 0 {
                    true => self.row.saturating_sub(step),
                    false => self.row + step,
                };
            }
            Key::Left | Key::Right => {
                if let Some(row) = self.rows().get(self.row).filter(|row| row.directory) {
                    match key {
                        Key::Left => self.closed.insert(row.path.clone()),
                        _ => self.closed.remove(&row.path),
                    };
                }
            }
        }
        self.row = self.row.min(self.rows().len().saturating_sub(1));
        true
    }

    /// Exactly `height` lines of at most `width` characters; the chosen ones are marked.
    fn draw(&self, width: usize, height: usize) -> Vec<String> {
        let cut = |text: &str| text.chars().take(width).collect::<String>();
        let layers = self.layers();
        let upper = (height / 3).clamp(1, layers.len().max(1));
        // With all of its digits, what follows would be out of sight on most terminals.
        let id: String = self.contents.at(&["Id"]).text().chars().take(SHORT_ID).collect();
        let mut lines = vec![cut(&format!(
            "{id}: {} in {} layers, {} wasted",
            bytes(self.contents, "TotalBytes"),
            layers.len(),
            bytes(self.contents, "WastedBytes")
        ))];
        for (index, layer) in window(layers, self.layer, upper) {
            let counts = ["Added", "Changed", "Removed"].map(|key| layer.at(&[key]).int());
            let chosen = if index == self.layer { '>' } else { ' ' };
            lines.push(cut(&format!(
                "{chosen} {index:>3} {:>9}  +{} ~{} -{}  {}",
                bytes(layer, "Bytes"),
                counts[0],
                counts[1],
                counts[2],
                step(layer)
            )));
        }
        lines.push("─".repeat(width));
        let rows = self.rows();
        let below = height.saturating_sub(lines.len() + 1);
        for (index, row) in window(&rows, self.row, below) {
            let chosen = if index == self.row && !self.upper {
                '>'
            } else {
                ' '
            };
            lines.push(cut(&format!("{chosen} {}", row.text)));
        }
        lines.resize(height.saturating_sub(1), String::new());
        lines.push(cut("↑↓ move  ←→ close, open  tab other half  w wasted  q quit"));
        lines
    }
}

/// At most `most` items around the chosen one, with their places.
fn window<T>(items: &[T], chosen: usize, most: usize) -> impl Iterator<Item = (usize, &T)> {
    let first = chosen
        .saturating_sub(most / 2)
        .min(items.len().saturating_sub(most));
    items.iter().enumerate().skip(first).take(most)
}

/// The keys in what a terminal sent at once.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut found = Vec::new();
    let mut rest = bytes;
    loop {
        let (key, length) = match rest {
            [] => return found,
            [0x1b, b'[' | b'O', b'A', ..] => (Some(Key::Up), 3),
            [0x1b, b'[' | b'O', b'B', ..] => (Some(Key::Down), 3),
            [0x1b, b'[' | b'O', b'C', ..] => (Some(Key::Right), 3),
            [0x1b, b'[' | b'O', b'D', ..] => (Some(Key::Left), 3),
            [0x1b, b'[', b'5', b'~', ..] => (Some(Key::Page(-1)), 4),
            [0x1b, b'[', b'6', b'~', ..] => (Some(Key::Page(1)), 4),
            [b'k', ..] => (Some(Key::Up), 1),
            [b'j', ..] => (Some(Key::Down), 1),
            [b'h', ..] => (Some(Key::Left), 1),
            [b'l' | b'\r' | b'\n' | b' ', ..] => (Some(Key::Right), 1),
            [b'\t', ..] => (Some(Key::Tab), 1),
            [b'w', ..] => (Some(Key::Wasted), 1),
            [b'q' | 0x03 | 0x04, ..] => (Some(Key::Quit), 1),
            // Escape alone; before something unknown it is passed over.
            [0x1b] => (Some(Key::Quit), 1),
            _ => (None, 1),
        };
        found.extend(key);
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Shows the contents until somebody has seen enough.
pub fn run(contents: &Value) -> io::Result<()> {
    let Some(_raw) = Raw::enter() else { return Ok(()) };
    let _screen = Screen::enter()?;
    let mut view = View::new(contents);
    loop {
        let (height, width) =
            terminal::size().map_or((24, 80), |(rows, columns)| (rows.into(), columns.into()));
        let mut picture = String::from("\x1b[H");
        for (index, line) in view.draw(width, height).iter().enumerate() {
            if index > 0 {
                picture.push_str("\r\n");
            }
            picture.push_str(line);
            picture.push_str("\x1b[K");
        }
        stdout().write_all(picture.as_bytes())?;
        stdout().flush()?;
        let mut buffer = [0; 64];
        let read = stdin().read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        for key in keys(buffer.get(..read).unwrap_or_default()) {
            if !view.press(key) {
                return Ok(());
            }
        }
    }
}

/// The terminal's second screen while it lives, so that the first one is as it was afterwards.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Screen> {
        stdout().write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = stdout().write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = stdout().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Value {
        Value::parse(
            br#"{"Id":"sha256:aa","TotalBytes":3000,"WastedBytes":1000,
            "Layers":[
             {"CreatedBy":"ADD x","Bytes":2000,"Added":2,"Entries":[
               {"Path":"/etc","Change":"added","Kind":"directory","Mode":493},
               {"Path":"/etc/a","Change":"added","Kind":"file","Mode":420,"Bytes":1000}]},
             {"CreatedBy":"RUN\n y","Bytes":1000,"Removed":1,"Entries":[{"Path":"/etc/a","Change":"removed"}]}],
            "Wasted":[{"Path":"/etc/a\u001b[31m","Bytes":1000,"Layer":0,"HiddenBy":1,"Why":"removed"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_keys_move_and_open() {
        let contents = contents();
        let mut view = View::new(&contents);
        let lines = view.draw(60, 12);
        assert_eq!(lines.len(), 12);
        assert!(
            lines[1].starts_with(">   0       2kB  +2 ~0 -0  ADD x"),
            "{}",
            lines[1]
        );
        assert!(
            lines.iter().any(|line| line.contains("A a (644 0:0 1kB)")),
            "{lines:?}"
        );
        // The directory is closed, and what is in it is not shown.
        for key in [Key::Tab, Key::Left] {
            assert!(view.press(key));
        }
        assert!(!view.draw(60, 12).iter().any(|line| line.contains("A a")));
        for key in [Key::Right, Key::Tab, Key::Down, Key::Down] {
            assert!(view.press(key));
        }
        let lines = view.draw(60, 12);
        assert!(
            lines[2].starts_with(">   1") && lines[2].contains("RUN y"),
            "{lines:?}"
        );
        assert!(lines.iter().any(|line| line.contains("D a")), "{lines:?}");
        view.press(Key::Wasted);
        let lines = view.draw(60, 12);
        assert!(
            lines.iter().any(|line| line.contains("removed in layer 1")),
            "{lines:?}"
        );
        assert!(!lines.iter().any(|line| line.contains('\x1b')), "{lines:?}");
        assert!(!view.press(Key::Quit));
        // No size is too small.
        for (width, height) in [(0, 0), (1, 1), (5, 3), (200, 2)] {
            assert_eq!(view.draw(width, height).len(), height.max(1));
        }
    }

    #[test]
    fn keys_of_terminals() {
        assert_eq!(keys(b"\x1b[A\x1bOBj"), [Key::Up, Key::Down, Key::Down]);
        assert_eq!(keys(b"\x1b[5~\tq"), [Key::Page(-1), Key::Tab, Key::Quit]);
        assert_eq!(keys(b"\x1b"), [Key::Quit]);
        assert_eq!(keys(b"xyz"), []);
    }
}
