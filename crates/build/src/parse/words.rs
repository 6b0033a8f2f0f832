//! The ways in which instructions split the rest of their line: JSON lists, words between blanks, and
//! `key=value` words that keep their quotes.

/// A word and where it stands in the logical line (bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub offset: usize,
    pub width: usize,
}

/// The strings of a JSON list, if the text is one that holds nothing but strings.
///
/// Anything else is shell form: Docker gives no error there, and commands such as `[ -f x ] && y` rely on it.
pub fn json_strings(text: &str) -> Option<Vec<String>> {
    let trimmed = text.trim();
    if !trimmed.starts_with('[') {
        return None;
    }
    serde_json::from_str(trimmed).ok()
}

/// Words between blanks; quotes mean nothing. `base` is where `text` starts in the logical line.
pub fn whitespace_words(text: &str, base: usize) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if !c.is_whitespace() {
            start.get_or_insert(at);
        } else if let Some(from) = start.take() {
            words.push(word(text, from, at, base));
        }
    }
    words
}

/// Words between blanks outside quotes; quotes and escapes stay in the word for the later expansion.
pub fn pair_words(text: &str, base: usize, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() && quote.is_none() {
            if let Some(from) = start.take() {
                words.push(word(text, from, at, base));
            }
            continue;
        }
        start.get_or_insert(at);
        if c == escape && quote != Some('\'') {
            chars.next();
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '"' || c == '\'') {
            quote = Some(c);
        }
    }
    if let Some(from) = start {
        words.push(word(text, from, text.len(), base));
    }
    words
}

fn word(text: &str, from: usize, to: usize, base: usize) -> Word {
    Word {
        text: text.get(from..to).unwrap_or_default().to_owned(),
        offset: base + from,
        width: to - from,
    }
}
