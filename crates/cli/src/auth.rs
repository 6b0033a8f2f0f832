//! Logins of registries: kept in Docker's configuration file, or by credential programs (`docker-credential-*`).
//!
//! Programs are asked over stdin and stdout, as their protocol says: `get`, `store`, `erase`.

use crate::connect::config::Config;
use crate::failure::Failure;
use api_types::AuthConfig;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// The key under which Docker keeps the login of its own registry.
pub const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The key of a registry in the configuration.
pub fn key(domain: &str) -> &str {
    match domain {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    }
}

/// The bare host of a key or address.
pub fn host(key: &str) -> &str {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    bare.split('/').next().unwrap_or(bare)
}

/// The header that carries the login for one registry.
pub fn headers(config: &Config, domain: &str) -> Result<HeaderMap, Failure> {
    let login = find(config, key(domain))?.unwrap_or_default();
    header("x-registry-auth", &serde_json::to_vec(&login).unwrap_or_default())
}

fn header(name: &'static str, bytes: &[u8]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&URL_SAFE.encode(bytes))
        .map_err(|error| Failure::text(format!("cannot encode the login: {error}")))?;
    headers.insert(name, value);
    Ok(headers)
}

/// The program that keeps the login of a registry, if one does.
fn program(config: &Config, key: &str) -> Option<String> {
    let own = config
        .member("credHelpers", key)
        .or_else(|| config.member("credHelpers", host(key)))
        .and_then(Value::as_str)
        .map(str::to_owned);
    own.or_else(|| config.text("credsStore"))
        .filter(|name| !name.is_empty())
}

/// The login of a registry.
pub fn find(config: &Config, key: &str) -> Result<Option<AuthConfig>, Failure> {
    if let Some(program) = program(config, key) {
        let answer = ask(&program, "get", key)?;
        return Ok(answer.map(|answer| {
            let text = |name: &str| {
                answer
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let mut login = AuthConfig {
                serveraddress: key.to_owned(),
                ..AuthConfig::default()
            };
            match text("Username").as_str() {
                "<token>" => login.identitytoken = text("Secret"),
                name => {
                    login.username = name.to_owned();
                    login.password = text("Secret");
                }
            }
            login
        }));
    }
    let entry = config.member("auths", key).cloned().or_else(|| {
        let same = |(name, _): &(String, Value)| host(name) == host(key);
        config
            .members("auths")
            .into_iter()
            .find(same)
            .map(|(_, entry)| entry)
    });
    Ok(entry.map(|entry| {
        let text = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let decoded = STANDARD.decode(text("auth")).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        let (username, password) = decoded.split_once(':').unwrap_or(("", ""));
        AuthConfig {
            username: username.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
            identitytoken: text("identitytoken"),
            serveraddress: key.to_owned(),
            ..AuthConfig::default()
        }
    }))
}

/// Keeps a login; answers with a warning when it lies unencrypted in the file.
pub fn store(config: &mut Config, key: &str, login: &AuthConfig) -> Result<Option<String>, Failure> {
    if let Some(program) = program(config, key) {
        let (name, secret) = match login.identitytoken.is_empty() {
            true => (login.username.as_str(), login.password.as_str()),
            false => ("<token>", login.identitytoken.as_str()),
        };
        let document = json!({ "ServerURL": key, "Username": name, "Secret": secret });
        ask(&program, "store", &document.to_string())?;
        config.set_member("auths", key, Some(json!({})));
        config.save()?;
        return Ok(None);
    }
    let mut entry = serde_json::Map::new();
    if login.identitytoken.is_empty() {
        entry.insert(
            "auth".into(),
            json!(STANDARD.encode(format!("{}:{}", login.username, login.password))),
        );
    } else {
        entry.insert(
            "auth".into(),
            json!(STANDARD.encode(format!("{}:", login.username))),
        );
        entry.insert("identitytoken".into(), json!(login.identitytoken));
    }
    config.set_member("auths", key, Some(Value::Object(entry)));
    config.save()?;
    Ok(Some(format!(
        "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
        config.path().display()
    )))
}

/// Forgets a login; answers whether there was one.
pub fn erase(config: &mut Config, key: &str) -> Result<bool, Failure> {
    let known = config.member("auths", key).is_some();
    if let Some(program) = program(config, key) {
        ask(&program, "erase", key)?;
    }
    config.set_member("auths", key, None);
    config.save()?;
    Ok(known)
}

/// Runs a credential program. `None`: it has no such login.
fn ask(program: &str, verb: &str, input: &str) -> Result<Option<Value>, Failure> {
    let name = format!("docker-credential-{program}");
    let failed = |reason: String| {
        Failure::text(format!("error getting credentials - err: {reason}")).hint(format!(
            "the configuration names the program {name}; install it or remove credsStore/credHelpers"
        ))
    };
    let mut child = Command::new(&name)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("exec: {name:?}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("{}, out: `{}`", output.status, text.trim())));
    }
    Ok(Some(serde_json::from_str(&text).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(dir.path());
        let login = AuthConfig {
            username: "ann".into(),
            password: "s:cret".into(),
            ..AuthConfig::default()
        };
        assert!(store(&mut config, "reg:5000", &login).unwrap().is_some());
        let again = Config::load(dir.path());
        let found = find(&again, "reg:5000").unwrap().unwrap();
        assert_eq!(
            (found.username.as_str(), found.password.as_str()),
            ("ann", "s:cret")
        );
        let mut again = again;
        assert!(erase(&mut again, "reg:5000").unwrap());
        assert!(!erase(&mut again, "reg:5000").unwrap());
        assert_eq!(key("docker.io"), DOCKER_HUB);
        assert_eq!(host(DOCKER_HUB), "index.docker.io");
    }
}
