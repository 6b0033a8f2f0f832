//! Names of signals.

use super::error::CliError;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The lowest real-time signal that programs may use; the C library keeps two for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
pub(super) fn parse(text: &str) -> Result<i32, CliError> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, base: i32| match rest {
        "" => Some(base),
        rest => rest.parse::<i32>().ok().map(|offset| base + offset),
    };
    let number = if let Ok(number) = name.parse::<i32>() {
        Some(number)
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        real_time(rest, RTMIN)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        real_time(rest, RTMAX)
    } else {
        (1..)
            .zip(NAMES)
            .find(|(_, known)| *known == name)
            .map(|(number, _)| number)
    };
    match number {
        Some(number) if (0..=RTMAX).contains(&number) => Ok(number),
        _ => Err(CliError::Usage(format!("unknown signal {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_every_spelling() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("winch", 28),
            ("9", 9),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "NOSUCH", "65", "-1", "RTMIN+99"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
