//! The environment of the process, and its HOME.
//!
//! `HOME` is added when it is absent: the home directory of the user in the container's own `/etc/passwd`, `/`
//! when there is none. That file is the image's: it may be missing, enormous, or a pipe.

use std::fs::File;
use std::io::Read;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::LaunchError;

const MAX_PASSWD: u64 = 1 << 20;

/// Of several values of one name the last one stays, at the place of the first.
pub(crate) fn normalise(env: &[String]) -> Result<Vec<String>, LaunchError> {
    let mut out: Vec<String> = Vec::with_capacity(env.len());
    let mut places = std::collections::HashMap::new();
    for (index, variable) in env.iter().enumerate() {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(LaunchError::Invalid(format!(
                "process.env[{index}]: {variable:?} is not of the form name=value"
            )));
        };
        match places.get(name).and_then(|place: &usize| out.get_mut(*place)) {
            Some(earlier) => *earlier = variable.clone(),
            None => {
                places.insert(name.to_owned(), out.len());
                out.push(variable.clone());
            }
        }
    }
    Ok(out)
}

/// The value of a variable.
pub(crate) fn get<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter()
        .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

pub(crate) fn add_home(env: &mut Vec<String>, uid: u32) {
    if get(env, "HOME").is_none_or(str::is_empty) {
        let home = read_passwd()
            .and_then(|text| home_of(&text, uid))
            .unwrap_or_else(|| "/".to_owned());
        env.retain(|variable| !variable.starts_with("HOME="));
        env.push(format!("HOME={home}"));
    }
}

fn read_passwd() -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_PASSWD).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn home_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let own = fields.nth(2)?.parse::<u32>().ok()? == uid;
        let home = fields.nth(2)?;
        (own && !home.is_empty()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_stays() {
        let env = ["A=1", "B=2", "A=3"].map(str::to_owned);
        assert_eq!(normalise(&env).unwrap(), ["A=3", "B=2"]);
        assert!(normalise(&["nothing".to_owned()]).is_err());
        assert!(normalise(&["=x".to_owned()]).is_err());
        assert_eq!(get(&env, "B"), Some("2"));
    }

    #[test]
    fn home_from_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\nx:x:7:7::";
        assert_eq!(home_of(text, 33).as_deref(), Some("/var/www"));
        assert_eq!(home_of(text, 7), None);
        assert_eq!(home_of(text, 1000), None);
    }
}
