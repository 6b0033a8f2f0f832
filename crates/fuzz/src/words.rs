//! What came of an input, in words that tell outcomes apart and not inputs.

use std::fmt::Display;

/// Longest text of an outcome.
const LONGEST: usize = 200;

/// Of a parser's result: that it was read, or the error without what is the input's own in it: numbers and quoted parts.
pub fn outcome<T, E: Display>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => "read".to_owned(),
        Err(error) => plain(&error.to_string()),
    }
}

fn plain(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = text.chars().filter(|char| {
        let is_mark = *char == '"' && !escaped;
        escaped = *char == '\\' && !escaped;
        quoted ^= is_mark;
        !quoted && !char.is_numeric()
    });
    kept.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_hold_nothing_of_the_input() {
        let told = |text: &str| outcome(&Err::<(), _>(text));
        assert_eq!(outcome(&Ok::<_, String>(7)), "read");
        assert_eq!(
            told(r#""a\"b" is 12 bytes: no "x""#),
            told(r#""c" is 3 bytes: no "yy""#)
        );
        assert_ne!(told("it is long"), told("it is short"));
        assert!(told(&"x".repeat(1000)).len() <= LONGEST);
    }
}
