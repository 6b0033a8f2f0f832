//! Volumes of a plugin that goes away, comes back, and is asked by several at once. The plugin is a thread of the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use store::Store;
use volume::{CreateVolume, PluginSettings, VolumeError, Volumes};

struct Plugin {
    socket: PathBuf,
    home: PathBuf,
    volumes: Mutex<BTreeSet<String>>,
    calls: Mutex<Vec<String>>,
    /// Where every creation waits for others.
    meeting: Option<Barrier>,
}

impl Plugin {
    fn start(dir: &Path, meeting: Option<Barrier>) -> Arc<Plugin> {
        let plugin = Arc::new(Plugin {
            socket: dir.join("shelf.sock"),
            home: dir.join("home"),
            volumes: Mutex::default(),
            calls: Mutex::default(),
            meeting,
        });
        fs::create_dir(&plugin.home).unwrap();
        let listener = UnixListener::bind(&plugin.socket).unwrap();
        let serving = Arc::clone(&plugin);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(connection));
            }
        });
        plugin
    }

    fn serve(&self, mut connection: impl Read + Write) {
        let mut reader = BufReader::new(&mut connection);
        let (mut call, mut length) = (String::new(), 0);
        // Who does not trust the certificate says nothing.
        if !reader.read_line(&mut call).is_ok_and(|length| length > 0) {
            return;
        }
        let call = call.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            match header.to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question: Value = serde_json::from_slice(&body).unwrap();
        let name = question["Name"].as_str().unwrap_or_default();
        self.calls.lock().unwrap().push(format!("{call} {name}"));
        let body = self.answer(&call, name).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = connection.write_all(&[head.as_bytes(), body.as_bytes()].concat());
    }

    /// Listens on a port of loopback as well, over TLS, for those who show a certificate of the authority in `keys`.
    fn listen(self: &Arc<Plugin>, keys: &Path) -> u16 {
        let certificate = |name: &str| CertificateDer::from_pem_file(keys.join(name)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.crt")).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from_pem_file(keys.join("plugin.key")).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate("plugin.crt")], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let plugin = Arc::clone(self);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (plugin, config) = (Arc::clone(&plugin), Arc::clone(&config));
                std::thread::spawn(move || {
                    let tls = ServerConnection::new(config).unwrap();
                    plugin.serve(StreamOwned::new(tls, connection));
                });
            }
        });
        port
    }

    fn answer(&self, call: &str, name: &str) -> Value {
        if let (Some(meeting), "VolumeDriver.Create") = (&self.meeting, call) {
            meeting.wait();
        }
        let mut volumes = self.volumes.lock().unwrap();
        match call {
            "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
            "VolumeDriver.Create" => {
                fs::create_dir_all(self.home.join(name)).unwrap();
                volumes.insert(name.to_owned());
                json!({})
            }
            _ if !volumes.contains(name) => json!({"Err": "no such volume"}),
            "VolumeDriver.Get" => json!({"Volume": {"Name": name}}),
            "VolumeDriver.Mount" => json!({"Mountpoint": self.home.join(name)}),
            "VolumeDriver.Remove" => {
                volumes.remove(name);
                json!({})
            }
            _ => json!({}),
        }
    }

    fn count(&self, call: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|made| *made == call).count()
    }

    /// Nobody finds it until it is back.
    fn away<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let elsewhere = self.socket.with_extension("away");
        fs::rename(&self.socket, &elsewhere).unwrap();
        let done = meanwhile();
        fs::rename(&elsewhere, &self.socket).unwrap();
        done
    }
}

fn open(dir: &Path, plugins: &Path) -> Volumes {
    let store = Store::open(dir).unwrap();
    let settings = PluginSettings {
        directories: vec![plugins.to_owned()],
        timeout: Duration::from_secs(60),
    };
    Volumes::open_with(store.clone(), store.root(), settings).unwrap()
}

fn of_shelf(name: &str) -> CreateVolume {
    CreateVolume {
        name: Some(name.to_owned()),
        driver: "shelf".to_owned(),
        ..CreateVolume::default()
    }
}

#[test]
fn a_place_is_not_used_again_once_its_plugin_was_to_let_go() {
    let (dir, plugins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plugin = Plugin::start(plugins.path(), None);
    let volumes = open(dir.path(), plugins.path());
    volumes.create(of_shelf("books")).unwrap();
    volumes.mount("books", "one").unwrap();
    assert_eq!(volumes.place("books", Some("one")), plugin.home.join("books"));
    plugin.away(|| volumes.release("one"));
    assert_eq!(volumes.place("books", Some("one")), PathBuf::new());
    volumes.mount("books", "one").unwrap();
    assert_eq!(plugin.count("VolumeDriver.Mount books"), 2);
    // After a daemon's end as well, for every mount of a plugin that was silent once.
    volumes.mount("books", "two").unwrap();
    drop(volumes);
    let volumes = plugin.away(|| {
        let volumes = open(dir.path(), plugins.path());
        volumes.unmount_all_but(&BTreeSet::new());
        volumes
    });
    for holder in ["one", "two"] {
        volumes.mount("books", holder).unwrap();
        volumes.release(holder);
    }
    assert_eq!(plugin.count("VolumeDriver.Mount books"), 5);
    assert_eq!(plugin.count("VolumeDriver.Unmount books"), 2);
}

#[test]
fn a_place_is_the_holders_own_before_it_is_anothers() {
    let (dir, plugins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plugin = Plugin::start(plugins.path(), None);
    let volumes = open(dir.path(), plugins.path());
    volumes.create(of_shelf("books")).unwrap();
    volumes.mount("books", "a-first").unwrap();
    // It moves for those who come later.
    let moved = plugin.home.join("moved");
    fs::rename(plugin.home.join("books"), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, plugin.home.join("books")).unwrap();
    volumes.mount("books", "second").unwrap();
    assert_eq!(volumes.place("books", Some("second")), moved);
    // One without a place stands in nobody's way.
    plugin.away(|| volumes.release("a-first"));
    assert_eq!(volumes.place("books", None), moved);
}

#[test]
fn two_who_make_one_volume_at_once_both_have_it() {
    let (dir, plugins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Neither creation is answered before the plugin was asked for both.
    let plugin = Plugin::start(plugins.path(), Some(Barrier::new(2)));
    let volumes = open(dir.path(), plugins.path());
    let made: Vec<bool> = std::thread::scope(|scope| {
        let create = || volumes.create(of_shelf("books")).unwrap().1;
        let both = [scope.spawn(create), scope.spawn(create)];
        both.map(|one| one.join().unwrap()).into()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    assert_eq!(plugin.count("VolumeDriver.Remove books"), 0);
    assert_eq!(volumes.get("books").unwrap().driver, "shelf");
}

#[test]
fn what_a_plugin_has_lost_is_made_again_or_forgotten() {
    let (dir, plugins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plugin = Plugin::start(plugins.path(), None);
    let volumes = open(dir.path(), plugins.path());
    volumes.create(of_shelf("books")).unwrap();
    plugin.volumes.lock().unwrap().clear();
    for driver in ["shelf", ""] {
        plugin.volumes.lock().unwrap().clear();
        let again = CreateVolume {
            driver: driver.to_owned(),
            ..of_shelf("books")
        };
        assert!(!volumes.create(again).unwrap().1);
        assert!(plugin.volumes.lock().unwrap().contains("books"), "{driver:?}");
    }
    let other = CreateVolume {
        driver: volume::LOCAL.to_owned(),
        ..of_shelf("books")
    };
    assert!(matches!(
        volumes.create(other).unwrap_err(),
        VolumeError::NameTaken(_)
    ));
    plugin.volumes.lock().unwrap().clear();
    volumes.remove("books", false).unwrap();
    assert!(volumes.list().unwrap().is_empty());
}

#[test]
fn what_a_plugin_that_is_away_was_to_make_stays_and_the_rest_is_opened() {
    let (dir, plugins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plugin = Plugin::start(plugins.path(), None);
    let volumes = open(dir.path(), plugins.path());
    for name in ["books", "papers"] {
        let pending = CreateVolume {
            pending: true,
            ..of_shelf(name)
        };
        volumes.create(pending).unwrap();
    }
    drop(volumes);
    let volumes = plugin.away(|| open(dir.path(), plugins.path()));
    assert_eq!(volumes.list().unwrap().len(), 2);
    drop(volumes);
    assert!(open(dir.path(), plugins.path()).list().unwrap().is_empty());
    assert!(plugin.volumes.lock().unwrap().is_empty());
}

/// An authority, another one, and certificates of the first for a plugin on loopback and for us.
fn keys() -> Option<tempfile::TempDir> {
    const MAKE: &str = "
        make() { name=$1; shift
                 openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$name \
                     -keyout $name.key -out $name.crt \"$@\"; }
        make ca && make other &&
        make plugin -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE \
            -addext subjectAltName=IP:127.0.0.1 &&
        make client -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE";
    let dir = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("sh")
        .args(["-c", MAKE])
        .current_dir(&dir)
        .output();
    match made {
        Ok(made) if made.status.success() => Some(dir),
        _ => {
            println!("skipped: needs openssl (package openssl)");
            None
        }
    }
}

#[test]
fn one_on_another_host_is_reached_over_tls_and_only_if_it_is_who_it_says() {
    let Some(keys) = keys() else { return };
    let (dir, plugins, elsewhere) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let plugin = Plugin::start(elsewhere.path(), None);
    let port = plugin.listen(keys.path());
    let volumes = open(dir.path(), plugins.path());
    let path = |name: &str| keys.path().join(name);
    let known =
        json!({"CAFile": path("ca.crt"), "CertFile": path("client.crt"), "KeyFile": path("client.key")});
    let with = |changes: Value| {
        let mut tls = known.clone();
        tls.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        tls
    };
    let describe = |name: &str, address: &str, tls: &Value| {
        let text = json!({"Name": name, "Addr": address, "TLSConfig": tls}).to_string();
        fs::write(plugins.path().join(format!("{name}.json")), text).unwrap();
        CreateVolume {
            name: Some(format!("of-{name}")),
            driver: name.to_owned(),
            ..CreateVolume::default()
        }
    };
    let here = format!("https://127.0.0.1:{port}");
    let another_name = format!("https://localhost:{port}");
    for (name, address, tls) in [
        ("known", &here, &known),
        // What is behind the host is nothing to the protocol.
        ("deep", &format!("{here}/a/plugin"), &known),
        (
            "trusting",
            &another_name,
            &with(json!({"CAFile": "", "InsecureSkipVerify": true})),
        ),
    ] {
        volumes.create(describe(name, address, tls)).unwrap();
        volumes.mount(&format!("of-{name}"), "one").unwrap();
        let place = volumes.place(&format!("of-{name}"), Some("one"));
        assert_eq!(place, plugin.home.join(format!("of-{name}")));
    }
    let before = plugin.calls.lock().unwrap().clone();
    for (name, address, tls, said) in [
        // No roots but the system's, and those of somebody else.
        ("stranger", &here, &with(json!({"CAFile": ""})), "UnknownIssuer"),
        (
            "wrong",
            &here,
            &with(json!({"CAFile": path("other.crt")})),
            "UnknownIssuer",
        ),
        ("renamed", &another_name, &known, "not valid for name"),
        // The plugin wants to know who asks; what is heard of that depends on who is quicker.
        (
            "nobody",
            &here,
            &with(json!({"CertFile": "", "KeyFile": ""})),
            "does not answer",
        ),
        (
            "half",
            &here,
            &with(json!({"KeyFile": ""})),
            "one of CertFile and KeyFile without the other",
        ),
        (
            "lost",
            &here,
            &with(json!({"CAFile": "/nowhere/ca.crt"})),
            "/nowhere/ca.crt",
        ),
        ("typed", &here, &json!({"CAFile": 7}), "TLSConfig cannot be read"),
        (
            "plain",
            &format!("tcp://127.0.0.1:{port}"),
            &known,
            "https://HOST:PORT",
        ),
    ] {
        let refused = volumes
            .create(describe(name, address, tls))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(said) && refused.contains(name),
            "{name}: {refused}"
        );
    }
    assert_eq!(*plugin.calls.lock().unwrap(), before);
    assert_eq!(volumes.list().unwrap().len(), 3);
}
