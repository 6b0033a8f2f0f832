//! Docker's store of contexts: `<config>/contexts/meta/<sha256 of name>/meta.json`, certificates beside it in `tls/`.

use super::endpoint::TlsFiles;
use crate::failure::Failure;
use crate::json::Value;
use serde_json::json;
use std::path::{Path, PathBuf};

/// A stored context.
#[derive(Clone, Debug)]
pub struct Context {
    pub name: String,
    pub description: String,
    pub host: String,
    pub skip_verify: bool,
    pub document: Value,
}

fn hash(name: &str) -> String {
    let digest = spec::Digest::sha256(name.as_bytes()).to_string();
    digest
        .split_once(':')
        .map_or_else(String::new, |(_, hex)| hex.to_owned())
}

fn meta_dir(config: &Path, name: &str) -> PathBuf {
    config.join("contexts/meta").join(hash(name))
}

fn tls_dir(config: &Path, name: &str) -> PathBuf {
    config.join("contexts/tls").join(hash(name)).join("docker")
}

fn read(path: &Path) -> Option<Context> {
    let document = Value::parse(&std::fs::read(path).ok()?).ok()?;
    Some(Context {
        name: document.at(&["Name"]).text().to_owned(),
        description: document.at(&["Metadata", "Description"]).text().to_owned(),
        host: document.at(&["Endpoints", "docker", "Host"]).text().to_owned(),
        skip_verify: document.at(&["Endpoints", "docker", "SkipTLSVerify"]).flag(),
        document,
    })
}

pub fn load(config: &Path, name: &str) -> Result<Context, Failure> {
    read(&meta_dir(config, name).join("meta.json")).ok_or_else(|| {
        Failure::text(format!(
            "context {name:?}: context not found: open {}: no such file or directory",
            meta_dir(config, name).join("meta.json").display()
        ))
    })
}

/// All stored contexts by name.
pub fn list(config: &Path) -> Vec<Context> {
    let Ok(entries) = std::fs::read_dir(config.join("contexts/meta")) else {
        return Vec::new();
    };
    let mut out: Vec<Context> = entries
        .flatten()
        .filter_map(|entry| read(&entry.path().join("meta.json")))
        .collect();
    out.sort_by(|left, right| left.name.cmp(&right.name));
    out
}

impl Context {
    pub fn tls_files(&self, config: &Path) -> Option<TlsFiles> {
        let dir = tls_dir(config, &self.name);
        let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        if ca.is_none() && cert.is_none() && !self.skip_verify {
            return None;
        }
        Some(TlsFiles {
            verify: !self.skip_verify,
            ca,
            cert,
            key,
        })
    }
}

pub fn check_name(name: &str) -> Result<(), Failure> {
    let fine = name.len() > 1
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte));
    match name {
        "default" => Err(Failure::text("\"default\" is a reserved context name")),
        _ if !fine => Err(Failure::text(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ))),
        _ => Ok(()),
    }
}

/// Where the certificates of a new context come from: (file name, source).
pub type Certificates = Vec<(&'static str, PathBuf)>;

pub fn create(
    config: &Path,
    name: &str,
    description: &str,
    host: &str,
    skip_verify: bool,
    certificates: &Certificates,
) -> Result<(), Failure> {
    let dir = meta_dir(config, name);
    let failed = |error: std::io::Error| Failure::text(format!("cannot write context {name:?}: {error}"));
    let document = json!({
        "Name": name,
        "Metadata": { "Description": description },
        "Endpoints": { "docker": { "Host": host, "SkipTLSVerify": skip_verify } },
    });
    std::fs::create_dir_all(&dir).map_err(failed)?;
    if !certificates.is_empty() {
        let dir = tls_dir(config, name);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        for (file, source) in certificates {
            std::fs::copy(source, dir.join(file)).map_err(failed)?;
        }
    }
    std::fs::write(dir.join("meta.json"), document.to_string()).map_err(failed)
}

pub fn exists(config: &Path, name: &str) -> bool {
    meta_dir(config, name).join("meta.json").exists()
}

pub fn remove(config: &Path, name: &str) -> Result<(), Failure> {
    load(config, name)?;
    std::fs::remove_dir_all(meta_dir(config, name))
        .map_err(|error| Failure::text(format!("cannot remove context {name:?}: {error}")))?;
    let _ = std::fs::remove_dir_all(config.join("contexts/tls").join(hash(name)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_lives_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), "far", "d", "tcp://h:1", false, &Vec::new()).unwrap();
        assert_eq!(load(dir.path(), "far").unwrap().host, "tcp://h:1");
        assert_eq!(list(dir.path()).len(), 1);
        remove(dir.path(), "far").unwrap();
        assert!(load(dir.path(), "far").is_err() && list(dir.path()).is_empty());
        assert!(check_name("default").is_err() && check_name("-x").is_err() && check_name("ok").is_ok());
    }
}
