//! Volumes of plugins: one that works, one that hangs, and some that lie.
//!
//! The plugins are programs of the test: they listen on a socket, speak the protocol, and note what they are asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{Daemon, retry, text};

/// What is different about a plugin; the answer's body, if it is not the usual one.
type Manner = fn(&str, &Value) -> Option<Reply>;

enum Reply {
    Body(String),
    /// The connection stays open and nothing comes.
    Nothing,
    Hangup,
}

struct Plugin {
    home: PathBuf,
    calls: Mutex<Vec<String>>,
    manner: Manner,
    /// Volumes with their options.
    volumes: Mutex<BTreeMap<String, Value>>,
    /// Connections that are kept open.
    kept: Mutex<Vec<UnixStream>>,
}

impl Plugin {
    fn start(directory: &Path, name: &str, manner: Manner) -> Arc<Plugin> {
        let plugin = Arc::new(Plugin {
            home: directory.join(format!("{name}-data")),
            calls: Mutex::default(),
            manner,
            volumes: Mutex::default(),
            kept: Mutex::default(),
        });
        std::fs::create_dir_all(&plugin.home).unwrap();
        let listener = UnixListener::bind(directory.join(format!("{name}.sock"))).unwrap();
        let serving = Arc::clone(&plugin);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(connection));
            }
        });
        plugin
    }

    fn serve(&self, mut connection: UnixStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let call = line
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question: Value = serde_json::from_slice(&body).unwrap();
        let name = question["Name"].as_str().unwrap_or_default().to_owned();
        self.calls
            .lock()
            .unwrap()
            .push(format!("{call} {name}").trim().to_owned());
        let body = match (self.manner)(&call, &question) {
            None => self.answer(&call, &name, &question).to_string(),
            Some(Reply::Body(body)) => body,
            Some(Reply::Hangup) => return,
            Some(Reply::Nothing) => {
                self.kept.lock().unwrap().push(connection);
                return;
            }
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = connection.write_all(&[head.as_bytes(), body.as_bytes()].concat());
    }

    fn answer(&self, call: &str, name: &str, question: &Value) -> Value {
        let mut volumes = self.volumes.lock().unwrap();
        let shown = |name: &str| {
            json!({"Name": name, "Mountpoint": self.home.join(name), "CreatedAt": "2020-01-02T03:04:05Z",
                   "Status": {"replicas": 3}})
        };
        match call {
            "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
            "VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": "global"}}),
            "VolumeDriver.Create" if question["Opts"]["colour"] == "red" => json!({"Err": "no red volumes"}),
            "VolumeDriver.Create" => {
                std::fs::create_dir_all(self.home.join(name)).unwrap();
                volumes.insert(name.to_owned(), question["Opts"].clone());
                json!({"Err": ""})
            }
            "VolumeDriver.List" => {
                json!({"Volumes": volumes.keys().map(|name| shown(name)).collect::<Vec<_>>()})
            }
            _ if !volumes.contains_key(name) => json!({"Err": format!("no volume {name}")}),
            "VolumeDriver.Get" => json!({"Volume": shown(name)}),
            "VolumeDriver.Mount" | "VolumeDriver.Path" => json!({"Mountpoint": self.home.join(name)}),
            "VolumeDriver.Remove" => {
                volumes.remove(name);
                json!({})
            }
            "VolumeDriver.Unmount" => json!({}),
            _ => json!({"Err": "what?"}),
        }
    }

    fn count(&self, call: &str) -> usize {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|made| *made == call)
            .count()
    }
}

fn usual(_: &str, _: &Value) -> Option<Reply> {
    None
}

fn at_mount(call: &str, body: &str) -> Option<Reply> {
    (call == "VolumeDriver.Mount").then(|| Reply::Body(body.to_owned()))
}

/// A daemon that looks for plugins in a directory of its own, which is given as well.
fn daemon() -> (Daemon, PathBuf) {
    let mut daemon = Daemon::start();
    let directory = daemon.dir.path().join("plugins");
    std::fs::create_dir_all(&directory).unwrap();
    let flags = [
        "--volume-plugin-timeout",
        "2s",
        "--volume-plugin-dir",
        directory.to_str().unwrap(),
    ];
    daemon.args.extend(flags.map(str::to_owned));
    daemon.crash_and_restart();
    // Keeps what the first container of an image brings for those after it.
    daemon.ok(&["create", "--name", "first", "box:1", "true"]);
    (daemon, directory)
}

#[test]
fn a_plugins_volumes_are_used_like_ours() {
    guard!();
    let (daemon, directory) = daemon();
    let plugin = Plugin::start(&directory, "shelf", usual);
    let create = [
        "volume", "create", "-d", "shelf", "-o", "size=3", "--label", "a=b", "books",
    ];
    assert_eq!(daemon.ok(&create), "books\n");
    assert_eq!(plugin.volumes.lock().unwrap()["books"], json!({"size": "3"}));
    daemon.ok(&["volume", "create", "-d", "shelf", "books"]);
    assert_eq!(plugin.count("VolumeDriver.Create books"), 1);
    // One that was made by somebody else is there, too.
    plugin
        .volumes
        .lock()
        .unwrap()
        .insert("foreign".to_owned(), json!({}));
    std::fs::create_dir(plugin.home.join("foreign")).unwrap();
    let ls = ["volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Scope}}"];
    assert_eq!(daemon.ok(&ls), "shelf books global\nshelf foreign global\n");
    let format = "{{.Driver}} {{.Scope}} {{json .Status}} {{.Mountpoint}} {{.CreatedAt}} {{json .Labels}} {{json .Options}}";
    let shown = daemon.ok(&["volume", "inspect", "-f", format, "books"]);
    let place = plugin.home.join("books");
    let wanted = format!(
        "shelf global {{\"replicas\":3}} {} 2020-01-02T03:04:05Z {{\"a\":\"b\"}} {{\"size\":\"3\"}}\n",
        place.display()
    );
    assert_eq!(shown, wanted);
    if let Some(output) = daemon.docker(&["volume", "inspect", "-f", format, "books"]) {
        assert_eq!(text(&output.stdout), wanted);
    }
    let plugins = daemon.ok(&["info", "--format", "{{json .Plugins.Volume}}"]);
    assert_eq!(plugins, "[\"local\",\"shelf\"]\n");
    // Mounted for the first user, twice in one container once, and let go of when each ends.
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        "books:/d",
        "-v",
        "books:/e",
        "box:1",
        "sh",
        "-c",
        "echo x > /d/note; sleep 1000",
    ]);
    assert!(retry(|| place.join("note").exists().then_some(())).is_some());
    assert_eq!(plugin.count("VolumeDriver.Mount books"), 1);
    let source = daemon.ok(&[
        "inspect",
        "-f",
        "{{(index .Mounts 0).Source}} {{(index .Mounts 0).Driver}}",
        "one",
    ]);
    assert_eq!(source, format!("{} shelf\n", place.display()));
    let (_, refused) = daemon.fails(&["volume", "rm", "books"]);
    assert!(refused.contains("volume is in use"), "{refused}");
    daemon.ok(&["stop", "-t", "0", "one"]);
    assert_eq!(plugin.count("VolumeDriver.Unmount books"), 1);
    daemon.ok(&["start", "one"]);
    daemon.ok(&["rm", "-f", "one"]);
    let counts = ["Mount", "Unmount"].map(|call| plugin.count(&format!("VolumeDriver.{call} books")));
    assert_eq!(counts, [2, 2]);
    // By its name alone, made with a container, and with one that cannot start.
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", "foreign:/d", "box:1", "touch", "/d/y"]),
        ""
    );
    assert!(plugin.home.join("foreign/y").exists());
    daemon.ok(&[
        "run",
        "--rm",
        "--volume-driver",
        "shelf",
        "-v",
        "made:/d",
        "box:1",
        "touch",
        "/d/z",
    ]);
    daemon.ok(&[
        "run",
        "--rm",
        "--mount",
        "src=mount,dst=/d,volume-driver=shelf,volume-opt=k=v",
        "box:1",
        "true",
    ]);
    assert_eq!(plugin.volumes.lock().unwrap()["mount"], json!({"k": "v"}));
    daemon.fails(&["run", "--rm", "-v", "made:/d", "box:1", "/no/such"]);
    let counts = ["Mount", "Unmount"].map(|call| plugin.count(&format!("VolumeDriver.{call} made")));
    assert_eq!(counts, [2, 2]);
    // What only a directory of ours can do is refused; it is not ours to prune or to keep in the trash.
    for words in [
        &["clone", "books", "xx"][..],
        &["rename", "books", "xx"],
        &["export", "-o", "/dev/null", "books"],
        &["snapshot", "create", "books"],
    ] {
        let (code, said) = daemon.fails(&[&["volume"], words].concat());
        assert!(
            code == 1 && said.contains("the volume plugin shelf's"),
            "{words:?}: {said}"
        );
    }
    daemon.ok(&["volume", "prune", "-a", "-f"]);
    daemon.ok(&["volume", "rm", "books", "foreign", "made", "mount"]);
    assert!(plugin.volumes.lock().unwrap().is_empty());
    assert_eq!(
        daemon.ok(&["volume", "ls", "-q"]) + &daemon.ok(&["volume", "trash", "ls", "-q"]),
        ""
    );
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn what_was_mounted_is_let_go_of_after_a_kill() {
    guard!();
    let (mut daemon, directory) = daemon();
    let plugin = Plugin::start(&directory, "shelf", usual);
    let mount = "src=books,dst=/d,volume-driver=shelf";
    for name in ["lives", "ends"] {
        daemon.ok(&[
            "run", "-d", "--name", name, "--mount", mount, "box:1", "sleep", "1000",
        ]);
    }
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "ends"]);
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "ends"]);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = daemon
        .dir
        .path()
        .join("root/containers")
        .join(id.trim())
        .join("exit.json");
    assert!(retry(|| exit.exists().then_some(())).is_some());
    assert_eq!(plugin.count("VolumeDriver.Unmount books"), 0);
    daemon.start_again();
    let ended = retry(|| (plugin.count("VolumeDriver.Unmount books") == 1).then_some(()));
    assert!(ended.is_some(), "{}", daemon.log());
    daemon.ok(&["exec", "lives", "touch", "/d/still"]);
    daemon.ok(&["rm", "-f", "lives"]);
    assert_eq!(plugin.count("VolumeDriver.Unmount books"), 2);
}

#[test]
fn one_that_hangs_is_given_up_and_holds_nothing_up() {
    guard!();
    let (daemon, directory) = daemon();
    let plugin = Plugin::start(&directory, "slow", |call, _| {
        matches!(call, "VolumeDriver.Mount" | "VolumeDriver.List").then_some(Reply::Nothing)
    });
    daemon.ok(&["volume", "create", "-d", "slow", "books"]);
    daemon.ok(&["volume", "create", "ours"]);
    let before = crate::inventory::Inventory::of(&daemon);
    let (code, said) = daemon.fails(&["run", "--rm", "-v", "books:/d", "box:1", "true"]);
    assert_eq!(code, 125);
    assert!(
        said.contains("plugin \"slow\" does not answer VolumeDriver.Mount")
            && said.contains("--volume-plugin-timeout"),
        "{said}"
    );
    // It is told that nobody wants it any more, and nothing is left here.
    assert_eq!(plugin.count("VolumeDriver.Unmount books"), 1);
    before.assert_unchanged(&daemon, "a plugin that hangs");
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "books\nours\n");
    daemon.ok(&["run", "--rm", "-v", "ours:/d", "box:1", "true"]);
    daemon.ok(&["volume", "rm", "books"]);
}

#[test]
fn one_that_lies_is_told_of_and_leaves_nothing() {
    guard!();
    let (daemon, directory) = daemon();
    let liars: [(&str, Manner, &str); 7] = [
        (
            "root",
            |call, _| at_mount(call, r#"{"Mountpoint": "/"}"#),
            "is the host's root",
        ),
        (
            "relative",
            |call, _| at_mount(call, r#"{"Mountpoint": "../etc"}"#),
            "is not an absolute path",
        ),
        (
            "nowhere",
            |call, _| at_mount(call, r#"{"Mountpoint": "/no/such"}"#),
            "is not there",
        ),
        (
            "file",
            |call, _| at_mount(call, r#"{"Mountpoint": "/etc/passwd"}"#),
            "is not a directory",
        ),
        (
            "broken",
            |call, _| at_mount(call, r#"{"Mountpoint": 7"#),
            "something that cannot be used",
        ),
        ("empty", |call, _| at_mount(call, ""), "is not an absolute path"),
        (
            "mute",
            |call, _| (call == "VolumeDriver.Mount").then_some(Reply::Hangup),
            "the connection ended before the answer did",
        ),
    ];
    for (name, manner, complaint) in liars {
        Plugin::start(&directory, name, manner);
        let volume = format!("of-{name}");
        daemon.ok(&["volume", "create", "-d", name, &volume]);
        let before = crate::inventory::Inventory::of(&daemon);
        let (code, said) = daemon.fails(&["run", "--rm", "-v", &format!("{volume}:/d"), "box:1", "true"]);
        assert!(
            code == 125 && said.contains(complaint) && said.contains(name),
            "{name}: {code} {said}"
        );
        before.assert_unchanged(&daemon, name);
        daemon.ok(&["volume", "rm", &volume]);
    }
    // The engine's own directory is nobody's volume.
    let own = Plugin::start(&directory, "own", |_, _| None);
    daemon.ok(&["volume", "create", "-d", "own", "books"]);
    std::fs::remove_dir(own.home.join("books")).unwrap();
    std::os::unix::fs::symlink(daemon.dir.path().join("root/volumes"), own.home.join("books")).unwrap();
    let (_, said) = daemon.fails(&["run", "--rm", "-v", "books:/d", "box:1", "true"]);
    assert!(said.contains("holds the engine's own volumes"), "{said}");
    daemon.ok(&["volume", "rm", "books"]);
    // What it refuses is said in its words, and what it is not is said, too.
    let (code, said) = daemon.fails(&["volume", "create", "-d", "own", "-o", "colour=red", "books"]);
    assert!(
        code == 1 && said.contains("create books: VolumeDriver.Create: no red volumes"),
        "{said}"
    );
    Plugin::start(&directory, "other", |call, _| {
        (call == "Plugin.Activate").then(|| Reply::Body(json!({"Implements": ["NetworkDriver"]}).to_string()))
    });
    let (_, said) = daemon.fails(&["volume", "create", "-d", "other", "books"]);
    assert!(said.contains("plugin \"other\" is no volume plugin"), "{said}");
    std::fs::write(directory.join("spec.spec"), "nonsense").unwrap();
    std::fs::write(
        directory.join("json.json"),
        "{\"Name\": \"json\", \"Addr\": \"unix:///no/such.sock\"}",
    )
    .unwrap();
    for (name, complaint) in [
        ("spec", "is none of unix:///PATH, tcp://HOST:PORT"),
        ("json", "plugin \"json\" does not answer Plugin.Activate"),
        ("nosuch", "plugin \"nosuch\" not found"),
    ] {
        let (code, said) = daemon.fails(&["volume", "create", "-d", name, "books"]);
        assert!(code == 1 && said.contains(complaint), "{name}: {said}");
    }
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "");
    // Described by a file, it works as well.
    std::fs::write(
        directory.join("alias.spec"),
        format!("unix://{}\n", directory.join("own.sock").display()),
    )
    .unwrap();
    daemon.ok(&["volume", "create", "-d", "alias", "books"]);
    assert_eq!(own.count("VolumeDriver.Create books"), 3);
}
