//! What the engine may ask this client for while it builds: named contexts, secrets, agents for keys, logins.

use super::caches;
use super::context;
use super::keys::KeyAgent;
use crate::auth;
use crate::connect::config::Config;
use crate::failure::Failure;
use session::content::LAYOUT_STORE;
use session::lend::{Lent, Login};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `NAME=VALUE`: lends what has to be lent for it, and says what the name stands for.
pub fn named_context(
    text: &str,
    lent: &mut Lent,
    attributes: &mut HashMap<String, String>,
) -> Result<(), Failure> {
    let Some((name, value)) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
    else {
        return Err(Failure::text(format!(
            "invalid context {text:?}: expected NAME=VALUE"
        )));
    };
    let meaning = if let Some(layout) = value.strip_prefix("oci-layout://") {
        layout_context(name, layout, lent)?
    } else if value.starts_with("docker-image://") || context::is_remote(value) {
        value.to_owned()
    } else {
        let root = context::directory(Path::new(value))?;
        let shared = match name {
            // These are the build's own.
            "context" | "dockerfile" => format!("_{name}"),
            name => name.to_owned(),
        };
        lent.directories.insert(shared.clone(), root);
        format!("local:{shared}")
    };
    attributes.insert(format!("context:{name}"), meaning);
    Ok(())
}

/// `DIRECTORY[:TAG][@DIGEST]`
fn layout_context(name: &str, text: &str, lent: &mut Lent) -> Result<String, Failure> {
    let (place, digest) = match text.rsplit_once('@') {
        Some((place, digest)) if digest.parse::<spec::Digest>().is_ok() => (place, Some(digest.to_owned())),
        _ => (text, None),
    };
    let (place, tag) = match place.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => (before, tag),
        _ => (place, "latest"),
    };
    let digest = match digest {
        Some(digest) => Some(digest),
        None => caches::find(Path::new(place), tag)?,
    };
    let Some(digest) = digest else {
        return Err(Failure::text(format!(
            "the context {name}: there is no image {tag} in the directory {place}"
        ))
        .hint("it needs an index.json in OCI's layout; name the image with :TAG or @DIGEST"));
    };
    let id = spec::Id::random().to_string();
    lent.stores.insert(
        format!("{LAYOUT_STORE}{id}"),
        caches::store(Path::new(place), false),
    );
    Ok(format!("oci-layout://{id}@{digest}"))
}

/// `default`, `ID`, `ID=SOCKET` or `ID=KEY[,KEY…]`. The agent that holds key files lends them as long as it is held.
pub fn agent(text: &str, lent: &mut Lent) -> Result<Option<KeyAgent>, Failure> {
    let (id, place) = match text.split_once('=') {
        Some((id, place)) => (id, Some(place.to_owned())),
        None => (text, None),
    };
    let id = if id.is_empty() { "default" } else { id };
    let is_socket = |place: &str| {
        let meta = std::fs::metadata(place)
            .map_err(|error| Failure::text(format!("invalid --ssh {text}: {place}: {error}")))?;
        Ok::<_, Failure>(std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()))
    };
    if let Some(places) = place.as_deref().filter(|places| !places.is_empty()) {
        let places: Vec<&str> = places.split(',').collect();
        let sockets = places
            .iter()
            .map(|place| is_socket(place))
            .collect::<Result<Vec<_>, _>>()?;
        if !sockets.contains(&true) {
            let agent = KeyAgent::with(&places)?;
            lent.agents.insert(id.to_owned(), agent.socket());
            return Ok(Some(agent));
        }
        if places.len() > 1 {
            return Err(Failure::text(format!(
                "invalid --ssh {text}: an agent's socket cannot be lent together with others"
            ))
            .hint("give each an id of its own: --ssh ID=SOCKET --ssh OTHER=KEY"));
        }
    }
    let place = match place.filter(|place| !place.is_empty()) {
        Some(place) => place,
        None => std::env::var("SSH_AUTH_SOCK")
            .ok()
            .filter(|place| !place.is_empty())
            .ok_or_else(|| {
                Failure::text(format!(
                    "invalid --ssh {text}: the variable SSH_AUTH_SOCK is not set"
                ))
                .hint("start an agent (eval $(ssh-agent); ssh-add), or name its socket: --ssh ID=SOCKET")
            })?,
    };
    if !is_socket(&place)? {
        return Err(
            Failure::text(format!("invalid --ssh {text}: {place} is no agent's socket"))
                .hint("SSH_AUTH_SOCK names it; key files are lent with --ssh ID=KEY"),
        );
    }
    lent.agents.insert(id.to_owned(), PathBuf::from(place));
    Ok(None)
}

/// Looks up the login of a registry as `pull` does.
pub fn logins(directory: &Path) -> session::lend::Logins {
    let directory = directory.to_owned();
    Arc::new(move |host: &str| {
        let config = Config::load(&directory);
        let found = auth::find(&config, auth::key(host)).map_err(|failure| failure.message)?;
        Ok(found.and_then(|login| {
            let token = !login.identitytoken.is_empty();
            let (user, secret) = match token {
                true => (String::new(), login.identitytoken),
                false => (login.username, login.password),
            };
            (!secret.is_empty()).then_some(Login { user, secret })
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_meanings() {
        let dir = tempfile::tempdir().unwrap();
        let (mut lent, mut attributes) = (Lent::default(), HashMap::new());
        let mut add = |text: &str| named_context(text, &mut lent, &mut attributes);
        let place = dir.path().display();
        add(&format!("src={place}")).unwrap();
        add(&format!("context={place}")).unwrap();
        add("base=docker-image://box:1").unwrap();
        add("repo=https://h/x.git").unwrap();
        let digest = spec::Digest::sha256(b"x");
        add(&format!("layout=oci-layout://{place}:1@{digest}")).unwrap();
        let home = dir.path().join("me@home");
        std::fs::create_dir(&home).unwrap();
        let index = format!(r#"{{"manifests": [{{"digest": "{digest}"}}]}}"#);
        std::fs::write(home.join("index.json"), index).unwrap();
        add(&format!("home=oci-layout://{place}/me@home")).unwrap();
        for text in [
            "x",
            "=y",
            "x=",
            "x=/nosuch/place",
            &format!("x=oci-layout://{place}"),
        ] {
            assert!(add(text).is_err(), "{text}");
        }
        assert_eq!(attributes["context:src"], "local:src");
        assert_eq!(attributes["context:context"], "local:_context");
        assert_eq!(attributes["context:base"], "docker-image://box:1");
        assert_eq!(attributes["context:repo"], "https://h/x.git");
        assert_eq!(lent.stores.len(), 2);
        for (name, place) in [("context:layout", dir.path()), ("context:home", home.as_path())] {
            let layout = attributes[name].strip_prefix("oci-layout://").unwrap();
            let (id, of) = layout.split_once('@').unwrap();
            assert_eq!(of, digest.to_string());
            assert_eq!(
                lent.stores[&format!("{LAYOUT_STORE}{id}")],
                caches::store(place, false)
            );
        }
    }

    #[test]
    fn an_agent_is_lent_by_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut lent = Lent::default();
        let held = agent(&format!("mine={}", socket.display()), &mut lent).unwrap();
        assert!(held.is_none());
        assert_eq!(lent.agents["mine"], socket);
        let both = format!("mine={},{}", socket.display(), dir.path().display());
        for (text, part) in [("x=/nosuch", "/nosuch"), (&both, "together with others")] {
            let said = agent(text, &mut lent).err().unwrap().message;
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
