//! `RUN --mount=…`: directories and files that a command sees while it runs and that never reach the image.
//!
//! Source of the rules: the Dockerfile reference, "RUN --mount".

use super::read::{flag_fault, nearest, value_of};
use crate::parse::{Fault, Flag};

/// How several steps may use one cache directory at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    /// A socket that leads to the client's agent for keys.
    Ssh,
}

/// One mount, texts unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    pub from: Option<String>,
    pub source: Option<String>,
    pub target: Option<String>,
    pub id: Option<String>,
    pub read_only: Option<bool>,
    pub sharing: Sharing,
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub required: bool,
    /// A secret's environment variable.
    pub env: Option<String>,
    /// As it is written, to be read again when variables are known.
    pub written: Option<Flag>,
}

/// What is said about a mount, part by part, in the order of the flag.
pub type Fields = Vec<(String, Option<String>)>;

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "id",
    "readonly",
    "ro",
    "rw",
    "readwrite",
    "sharing",
    "size",
    "mode",
    "uid",
    "gid",
    "required",
    "env",
];

impl Mount {
    /// A mount of which nothing but its kind is said.
    pub fn plain(kind: MountKind) -> Mount {
        Mount {
            kind,
            from: None,
            source: None,
            target: None,
            id: None,
            read_only: None,
            sharing: Sharing::Shared,
            size: None,
            mode: None,
            uid: None,
            gid: None,
            required: false,
            env: None,
            written: None,
        }
    }

    /// Reads the flag's value. Where a variable says more than a name or a path, that is left as if it had not been said, and
    /// the mount is only whole when [`Mount::of`] has read it again.
    pub fn read(flag: &Flag) -> Result<Mount, Fault> {
        let fields = Mount::fields(flag)?;
        let is_text = |key: &str| {
            matches!(
                key,
                "from" | "source" | "src" | "target" | "dst" | "destination" | "id" | "env"
            )
        };
        let is_known = |(key, value): &&(String, Option<String>)| {
            is_text(key) || !value.as_deref().is_some_and(|value| value.contains('$'))
        };
        let known: Fields = fields.iter().filter(is_known).cloned().collect();
        let mut mount = match known.len() == fields.len() {
            true => Mount::of(flag, &fields)?,
            false => Mount::said(flag, &known)?,
        };
        mount.written = Some(flag.clone());
        Ok(mount)
    }

    /// The parts of a flag's value.
    pub fn fields(flag: &Flag) -> Result<Fields, Fault> {
        let fields = value_of(flag)?
            .split(',')
            .map(|field| match field.split_once('=') {
                Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.trim().to_ascii_lowercase(), None),
            });
        Ok(fields.collect())
    }

    /// The mount that all of this is said about.
    pub fn of(flag: &Flag, fields: &Fields) -> Result<Mount, Fault> {
        let mount = Mount::said(flag, fields)?;
        match mount.check() {
            Ok(()) => Ok(mount),
            Err(message) => Err(flag_fault(flag, message)),
        }
    }

    fn said(flag: &Flag, fields: &Fields) -> Result<Mount, Fault> {
        let fault = |message: String| flag_fault(flag, message);
        let mut mount = Mount::plain(MountKind::Bind);
        for (key, value) in fields {
            let value = value.as_deref();
            let yes = || match value.map(str::to_ascii_lowercase).as_deref() {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(other) => Err(fault(format!("invalid value for {key}: {other}"))),
            };
            match key.as_str() {
                "readonly" | "ro" => mount.read_only = Some(yes()?),
                "readwrite" | "rw" => mount.read_only = Some(!yes()?),
                "required" => mount.required = yes()?,
                _ => {
                    let Some(value) = value else {
                        return Err(fault(format!("invalid field '{key}' must be a key=value pair")));
                    };
                    mount.set(key, value).map_err(fault).map_err(|fault| {
                        let kind = nearest(value, &KINDS).filter(|_| key == "type");
                        match kind.or_else(|| nearest(key, &KEYS).filter(|name| name != key)) {
                            Some(name) => fault.help(format!("did you mean {name}?")),
                            None => fault,
                        }
                    })?;
                }
            }
        }
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = |radix: u32| {
            u32::from_str_radix(value, radix).map_err(|_| format!("invalid value {value} for {key}"))
        };
        match key {
            "type" => {
                self.kind = match value {
                    "bind" => MountKind::Bind,
                    "cache" => MountKind::Cache,
                    "tmpfs" => MountKind::Tmpfs,
                    "secret" => MountKind::Secret,
                    "ssh" => MountKind::Ssh,
                    other => return Err(format!("unsupported mount type \"{other}\"")),
                }
            }
            "from" => {
                if value.contains('$') {
                    return Err(format!(
                        "'from' doesn't support variable expansion, define alias stage instead: {value}"
                    ));
                }
                self.from = Some(value.to_owned());
            }
            "source" | "src" => self.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "env" => self.env = Some(value.to_owned()),
            "sharing" => {
                self.sharing = match value {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => return Err(format!("unsupported sharing value \"{other}\"")),
                }
            }
            "size" => self.size = Some(size(value).ok_or(format!("invalid value for size: {value}"))?),
            "mode" => self.mode = Some(number(8)? & 0o7777),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            _ => return Err(format!("unexpected key '{key}' in '{key}={value}'")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), &'static str> {
        let needs_target = !matches!(self.kind, MountKind::Secret | MountKind::Ssh);
        if needs_target && self.target.as_deref().is_none_or(str::is_empty) {
            return Err("mount target is required");
        }
        match self.kind {
            MountKind::Secret if self.id.is_none() && self.target.is_none() && self.source.is_none() => {
                Err("a secret needs an id or a target")
            }
            MountKind::Secret | MountKind::Ssh | MountKind::Tmpfs if self.from.is_some() => {
                Err("from is only allowed for bind and cache mounts")
            }
            MountKind::Bind | MountKind::Cache | MountKind::Secret | MountKind::Ssh
                if self.size.is_some() =>
            {
                Err("size is only allowed for tmpfs mounts")
            }
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs | MountKind::Ssh if self.env.is_some() => {
                Err("env is only allowed for secret mounts")
            }
            _ => Ok(()),
        }
    }

    /// Where the mount appears, as far as written.
    pub fn target_or_default(&self) -> String {
        match (&self.target, &self.id, &self.source) {
            (None, _, _) if self.kind == MountKind::Ssh => "/run/buildkit/ssh_agent.0".to_owned(),
            (Some(target), _, _) => target.clone(),
            (None, Some(id), _) => format!("/run/secrets/{id}"),
            (None, None, Some(source)) => format!("/run/secrets/{source}"),
            (None, None, None) => "/run/secrets/default".to_owned(),
        }
    }
}

/// Bytes, with the suffixes b, k, m, g, t (powers of 1024).
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let body = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, factor) = match body.chars().last()? {
        'k' => (body.strip_suffix('k')?, 1u64 << 10),
        'm' => (body.strip_suffix('m')?, 1 << 20),
        'g' => (body.strip_suffix('g')?, 1 << 30),
        't' => (body.strip_suffix('t')?, 1 << 40),
        _ => (body, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
