//! Addresses of contexts, as they may be shown.

/// A URL without what may be a password in it.
pub fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (server, path) = rest.split_at(end);
    match server.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("https://me:secret@h/x.git#a", "https://h/x.git#a"),
            ("https://me:se@cret@h", "https://h"),
            ("https://h/x@y", "https://h/x@y"),
            ("https://h?x@y", "https://h?x@y"),
            ("git@h:x.git", "git@h:x.git"),
        ] {
            assert_eq!(without_login(url), shown);
        }
    }
}
