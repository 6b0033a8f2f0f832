//! `--chmod`: octal, or symbolic as chmod(1) takes it (`u=rwX,go=rX`, `a+x`, `g-w`).

/// A change of permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    Set(u32),
    Clauses(Vec<Clause>),
}

/// One clause: who, how, what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

impl ModeChange {
    /// Reads the flag's value.
    pub fn parse(text: &str) -> Result<ModeChange, String> {
        let wrong =
            || format!("invalid chmod parameter: '{text}': it should be octal or symbolic, as 0755 or u=rwX");
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
            return if mode <= 0o7777 {
                Ok(ModeChange::Set(mode))
            } else {
                Err(wrong())
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let at = part.find(['+', '-', '=']).ok_or_else(wrong)?;
            let (who_text, rest) = part.split_at(at);
            let mut who = 0;
            for c in who_text.chars() {
                who |= match c {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(wrong()),
                };
            }
            let mut chars = rest.chars();
            let operator = chars.next().ok_or_else(wrong)?;
            let permissions = chars.as_str().to_owned();
            if !permissions.chars().all(|c| "rwxXst".contains(c)) {
                return Err(wrong());
            }
            clauses.push(Clause {
                who: if who == 0 { 0o7777 } else { who },
                operator,
                permissions,
            });
        }
        Ok(ModeChange::Clauses(clauses))
    }

    /// The permissions after the change.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        let clauses = match self {
            ModeChange::Set(mode) => return *mode,
            ModeChange::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(mode & 0o7777, |mode, clause| {
            let executable = directory || mode & 0o111 != 0;
            let bits = clause.permissions.chars().fold(0, |bits, c| {
                bits | match c {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if executable => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            }) & clause.who;
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !(clause.who & 0o777)) | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic() {
        for (text, mode, directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g+w,o-r", 0o644, false, 0o660),
            ("u+s", 0o755, false, 0o4755),
            ("go=", 0o777, false, 0o700),
        ] {
            assert_eq!(
                ModeChange::parse(text).unwrap().apply(mode, directory),
                expected,
                "{text}"
            );
        }
        for bad in ["", "9", "77777", "u", "z+x", "u+q"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}
