//! How values are shown: sizes, durations, times, tables and lists of rows.

pub mod duration;
pub mod listing;
pub mod size;
pub mod table;
pub mod time;

/// The first 12 digits of an id, without its algorithm.
pub fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// Cuts a text to `width` columns, ending in an ellipsis when something is lost.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        1 => text.chars().take(1).collect(),
        _ => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// Text from a daemon, image or registry made safe for a terminal: control characters are shown, not obeyed.
pub fn printable(text: &str) -> String {
    let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    match text.contains(bad) {
        true => text.replace(bad, "\u{fffd}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_ellipsis() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("abc"), "abc");
        assert_eq!(
            ellipsis("\"sleep infinity and a day\"", 20),
            "\"sleep infinity and…"
        );
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(printable("a\x1b[31mb"), "a\u{fffd}[31mb");
    }
}
