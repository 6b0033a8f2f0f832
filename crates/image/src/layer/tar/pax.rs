//! PAX extended headers: records of `LENGTH KEY=VALUE\n`.

use super::Time;

/// The records in order; `None` when the text is not made of records.
pub(super) fn records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(data.get(..space)?)?).ok()?;
        let record = data.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        found.push((record.get(..equals)?, record.get(equals + 1..)?));
        data = data.get(length..)?;
    }
    Some(found)
}

/// One record. Its length counts the digits of the length.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A time such as `1700000000.123456789` or `-1.5`; what is finer than nanoseconds is cut off towards the past.
pub(super) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0u32;
    for index in 0..9 {
        let digit = fraction.get(index).map_or(0, |byte| byte - b'0');
        nanos = nanos * 10 + u32::from(digit);
    }
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos: 0,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// The text of a time, as short as it can be.
pub(super) fn time_text(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

/// The value of a `LIBARCHIVE.xattr` record: base 64, its padding optional.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let text = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(digit);
        }
        let missing = 4 - group.len();
        let [_, a, b, c] = (bits << (6 * missing)).to_be_bytes();
        let whole = match missing {
            0 => 3,
            1 => 2,
            2 => 1,
            _ => return None,
        };
        out.extend([a, b, c].iter().take(whole));
    }
    Some(out)
}

/// The name of a `LIBARCHIVE.xattr` record: `%XX` stands for a byte.
pub(super) fn percent(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}

/// The reverse of [`percent`].
pub(super) fn to_percent(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' | b'=' => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

/// The reverse of [`base64`], without padding.
pub(super) fn to_base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for index in 0..3 {
            bits = (bits << 8) | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..=group.len() {
            let digit = (bits >> (18 - 6 * index)) & 0x3f;
            out.extend(DIGITS.get(digit as usize));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        for length in [0, 1, 87, 88, 89, 90, 985, 986, 987, 988, 989, 990, 991, 5000] {
            let value = vec![b'x'; length];
            let record = record(b"path", &value);
            let text = record.clone();
            assert_eq!(records(&text), Some(vec![(&b"path"[..], &*value)]), "{length}");
            let space = record.iter().position(|byte| *byte == b' ').unwrap();
            assert_eq!(decimal(&record[..space]), Some(record.len() as u64));
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            "5", "5 a=", "99 a=b\n", "6 a=b", "6 ab\n\n", "x a=b\n", " a=b\n", "0 a=b\n",
        ] {
            assert_eq!(records(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn times_go_both_ways() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("1700000000.5", 1_700_000_000, 500_000_000),
            ("1.000000001", 1, 1),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.5", -1, 500_000_000),
        ] {
            let time = Time { seconds, nanos };
            assert_eq!(super::time(text.as_bytes()), Some(time), "{text}");
            assert_eq!(time_text(time), text);
        }
        assert_eq!(time(b"1.5x"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn libarchive_encodings() {
        assert_eq!(base64(b"AAEC"), Some(vec![0, 1, 2]));
        assert_eq!(base64(b"AAE"), Some(vec![0, 1]));
        assert_eq!(base64(b"AA=="), Some(vec![0]));
        for length in 0..8 {
            let bytes: Vec<u8> = (0..length).map(|n| n * 37 + 200 % (n + 1)).collect();
            assert_eq!(base64(&to_base64(&bytes)), Some(bytes));
        }
        assert_eq!(percent(&to_percent(b"user.a=b%")), Some(b"user.a=b%".to_vec()));
        assert_eq!(base64(b"A"), None);
        assert_eq!(base64(b"A*=="), None);
        assert_eq!(percent(b"user.a%3Db"), Some(b"user.a=b".to_vec()));
        assert_eq!(percent(b"user.%3"), None);
    }
}
