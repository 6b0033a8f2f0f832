//! One record of comma-separated values (RFC 4180 quoting), as `--mount` and `--network` take them.

/// Splits one line into its fields.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().enumerate().peekable();
    loop {
        let mut field = String::new();
        if chars.peek().is_some_and(|(_, c)| *c == '"') {
            chars.next();
            loop {
                match chars.next() {
                    Some((_, '"')) if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        field.push('"');
                    }
                    Some((_, '"')) => break,
                    Some((_, c)) => field.push(c),
                    None => {
                        return Err("parse error on line 1: extraneous or missing \" in quoted-field".into());
                    }
                }
            }
            match chars.next() {
                None => {
                    out.push(field);
                    return Ok(out);
                }
                Some((_, ',')) => {}
                Some((at, _)) => {
                    return Err(format!(
                        "parse error on line 1, column {at}: extraneous or missing \" in quoted-field"
                    ));
                }
            }
        } else {
            let mut ended = true;
            for (at, c) in chars.by_ref() {
                match c {
                    ',' => {
                        ended = false;
                        break;
                    }
                    '"' => {
                        return Err(format!(
                            "parse error on line 1, column {}: bare \" in non-quoted-field",
                            at + 1
                        ));
                    }
                    c => field.push(c),
                }
            }
            if ended {
                out.push(field);
                return Ok(out);
            }
        }
        out.push(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(fields("a=1,b").unwrap(), ["a=1", "b"]);
        assert_eq!(fields("\"o=a,b\",\"x\"\"y\",").unwrap(), ["o=a,b", "x\"y", ""]);
        assert!(fields("a\"b").is_err());
        assert!(fields("\"a").is_err());
    }
}
