//! Namespace modes, restart policies, pull policies, sysctls and the like: closed sets and their errors.

use api_types::RestartPolicy;

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`
pub fn restart(text: &str) -> Result<RestartPolicy, String> {
    if text.is_empty() {
        return Ok(RestartPolicy::default());
    }
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => {
            let bad = "invalid restart policy format: maximum retry count must be an integer";
            (name, count.parse().map_err(|_| bad.to_owned())?)
        }
        None => (text, 0),
    };
    if name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".into());
    }
    Ok(RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count: count,
    })
}

pub fn pid(text: &str) -> Result<(), String> {
    let fine =
        matches!(text, "" | "host") || text.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    if fine {
        Ok(())
    } else {
        Err("--pid: invalid PID mode".into())
    }
}

pub fn uts(text: &str) -> Result<(), String> {
    if matches!(text, "" | "host") {
        Ok(())
    } else {
        Err("--uts: invalid UTS mode".into())
    }
}

/// What goes to the daemon: it cannot see who asks, so `keep-id` tells it.
pub fn userns(text: &str, caller: (u32, u32)) -> Result<String, String> {
    let (word, rest) = match text.split_once(':') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text, None),
    };
    match (word, rest) {
        ("" | "host" | "private" | "auto", None) => Ok(text.to_owned()),
        ("auto", Some(rest)) if rest.starts_with("size=") => Ok(text.to_owned()),
        ("container", Some(name)) if !name.is_empty() => Ok(text.to_owned()),
        ("keep-id", rest) => {
            let mut words: Vec<String> = rest
                .into_iter()
                .flat_map(|rest| rest.split(','))
                .map(str::to_owned)
                .collect();
            for (key, id) in [("uid=", caller.0), ("gid=", caller.1)] {
                if !words.iter().any(|word| word.starts_with(key)) {
                    words.push(format!("{key}{id}"));
                }
            }
            Ok(format!("keep-id:{}", words.join(",")))
        }
        _ => Err("--userns: invalid USER mode".into()),
    }
}

pub fn cgroupns(text: &str) -> Result<(), String> {
    if matches!(text, "" | "host" | "private") {
        Ok(())
    } else {
        Err("--cgroupns: invalid CGROUP mode".into())
    }
}

/// When an image is fetched before a container is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pull {
    Always,
    Missing,
    Never,
}

pub fn pull(text: &str) -> Result<Pull, String> {
    match text {
        "always" => Ok(Pull::Always),
        "" | "missing" => Ok(Pull::Missing),
        "never" => Ok(Pull::Never),
        _ => Err(format!(
            "invalid pull option: '{text}': must be one of \"always\", \"missing\" or \"never\""
        )),
    }
}

pub fn check_attach(text: &str) -> Result<(), String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".into()),
    }
}

/// Only sysctls that belong to a namespace.
pub fn check_sysctl(text: &str) -> Result<(), String> {
    const NAMES: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let bad = Err(format!("sysctl '{text}' is not allowed"));
    let Some((name, _)) = text.split_once('=') else {
        return bad;
    };
    if NAMES.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.") {
        return Ok(());
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_sets() {
        assert_eq!(restart("on-failure:3").unwrap().maximum_retry_count, 3);
        assert!(restart("on-failure:x").is_err() && restart(":1").is_err());
        assert!(pid("container:a").is_ok() && pid("foo").is_err() && uts("bar").is_err());
        let userns = |text| userns(text, (1000, 100));
        assert_eq!(userns("keep-id").unwrap(), "keep-id:uid=1000,gid=100");
        assert_eq!(userns("keep-id:uid=7").unwrap(), "keep-id:uid=7,gid=100");
        assert_eq!(userns("keep-id:gid=8,uid=7").unwrap(), "keep-id:gid=8,uid=7");
        assert_eq!(userns("auto:size=9").unwrap(), "auto:size=9");
        assert!(userns("foo").is_err() && userns("container:").is_err() && userns("auto:x").is_err());
        assert!(check_sysctl("net.core.somaxconn=1").is_ok() && check_sysctl("foo").is_err());
        assert_eq!(pull("never"), Ok(Pull::Never));
        assert!(check_attach("STDIN").is_ok() && check_attach("foo").is_err());
    }
}
