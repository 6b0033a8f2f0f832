//! Definitions (LLB) that a real client made, solved through `Control/Solve`: `crates/buildkit/fixtures` says what they are.

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use bollard_buildkit_proto::pb::{
    BuildInput, BuildOp, Definition, FileAction, FileActionMkFile, FileOp, Input, Op, file_action, op,
};
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::support::Daemon;

/// Solves a recorded definition; the image of the result is called `NAME:1`.
fn solve(daemon: &Daemon, name: &str) -> Result<(), tonic::Status> {
    let path = format!("{}/../buildkit/fixtures/{name}.llb", env!("CARGO_MANIFEST_DIR"));
    let definition = Definition::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    solve_as(daemon, name, definition)
}

fn solve_as(daemon: &Daemon, name: &str, definition: Definition) -> Result<(), tonic::Status> {
    let request = SolveRequest {
        r#ref: format!("{name}-{}", std::process::id()),
        definition: Some(definition),
        exporters: vec![Exporter {
            r#type: "image".to_owned(),
            attrs: [("name".to_owned(), format!("{name}:1"))].into_iter().collect(),
        }],
        ..SolveRequest::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = connect(daemon).await;
        ControlClient::new(channel).solve(request).await.map(|_| ())
    })
}

pub async fn connect(daemon: &Daemon) -> Channel {
    let socket = daemon.dir.path().join("run/berth.sock");
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

fn said(daemon: &Daemon, image: &str, script: &str) -> String {
    daemon.ok(&["run", "--rm", image, "/bin/sh", "-c", script])
}

#[test]
fn a_command_runs_with_its_mounts_and_its_good_exit_codes() {
    guard!();
    let daemon = Daemon::start();
    solve(&daemon, "command").unwrap();
    assert_eq!(said(&daemon, "command:1", "cat /srv/out"), "b c\none\n");
    // The mounts are gone, and so are the places they were at.
    assert_eq!(
        said(
            &daemon,
            "command:1",
            "ls / | grep -c -e '^in$' -e cache -e tmp2; true"
        ),
        "0\n"
    );
    let layers = daemon.ok(&["inspect", "-f", "{{len .RootFS.Layers}}", "command:1"]);
    assert_eq!(layers, "2\n");
}

#[test]
fn what_a_command_wrote_into_a_mount_is_a_result() {
    guard!();
    let daemon = Daemon::start();
    solve(&daemon, "output").unwrap();
    let tar = daemon.dir.path().join("output.tar");
    daemon.ok(&["save", "-o", &tar.display().to_string(), "output:1"]);
    let layers = daemon.ok(&["inspect", "-f", "{{len .RootFS.Layers}}", "output:1"]);
    assert_eq!(
        layers, "1\n",
        "only what was written, and nothing of the image it was written with"
    );
}

#[test]
fn files_are_changed_without_a_command() {
    guard!();
    let daemon = Daemon::start();
    solve(&daemon, "tree").unwrap();
    let script = "ls -ldn /a /a/b /a/b/c /link | while read mode links uid gid rest; do echo $mode $uid $gid; done; \
                  cat /link /made/on/the/way/seed /whole/seed; ls -d /gone /srv 2>&1; true";
    let shown = said(&daemon, "tree:1", script);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines.get(..6).unwrap_or_default(),
        [
            "drwxr-x--- 1 2",
            "drwxr-x--- 1 2",
            "-rw-r----- 3 4",
            "lrwxrwxrwx 33 33",
            "content",
            "from the image"
        ],
        "{shown}"
    );
    assert!(
        !lines.iter().any(|line| *line == "/gone" || *line == "/srv"),
        "{shown}"
    );
}

#[test]
fn layers_are_laid_over_each_other_and_differences_are_layers() {
    guard!();
    let daemon = Daemon::start();
    solve(&daemon, "merge").unwrap();
    assert_eq!(
        said(&daemon, "merge:1", "cat /one /two /srv/seed"),
        "12from the image\n"
    );
    solve(&daemon, "together").unwrap();
    // What the difference deleted is gone, what it added is there.
    let script = "cat /one /new; ls /srv";
    assert_eq!(said(&daemon, "together:1", script), "1new\n");
    solve(&daemon, "diff").unwrap();
    let files = daemon.ok(&["inspect", "-f", "{{.Id}}", "diff:1"]);
    assert!(files.starts_with("sha256:"), "{files}");
}

#[test]
fn a_definition_that_is_solved_again_runs_nothing() {
    guard!();
    let daemon = Daemon::start();
    for name in ["command", "together"] {
        solve(&daemon, name).unwrap();
        let first = daemon.ok(&["inspect", "-f", "{{.Id}}", &format!("{name}:1")]);
        solve(&daemon, name).unwrap();
        let second = daemon.ok(&["inspect", "-f", "{{.Id}}", &format!("{name}:1")]);
        assert_eq!(first, second, "{name}");
    }
}

#[test]
fn what_cannot_be_solved_is_refused_and_leaves_nothing() {
    guard!();
    let daemon = Daemon::start();
    let before = daemon.ok(&["images", "-aq"]);
    // A directory of a client without a session, and bytes that are no operation.
    let error = solve(&daemon, "exec").unwrap_err();
    assert!(error.message().contains("sends none"), "{error}");
    let broken = Definition {
        def: vec![b"nonsense".to_vec()],
        ..Definition::default()
    };
    let error = solve_as(&daemon, "broken", broken).unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    assert_eq!(daemon.ok(&["images", "-aq"]), before);
}

/// A definition of operations in the order given, each of which uses the one before.
fn chain(ops: Vec<op::Op>) -> Definition {
    let mut def = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    for op in ops.into_iter().map(Some).chain([None]) {
        let inputs = last.iter().map(|bytes: &Vec<u8>| Input {
            digest: spec::Digest::sha256(bytes).to_string(),
            index: 0,
        });
        let op = Op {
            inputs: inputs.collect(),
            op,
            ..Op::default()
        };
        let bytes = op.encode_to_vec();
        def.push(bytes.clone());
        last = Some(bytes);
    }
    Definition {
        def,
        ..Definition::default()
    }
}

fn file(path: &str, data: Vec<u8>) -> op::Op {
    op::Op::File(FileOp {
        actions: vec![FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(file_action::Action::Mkfile(FileActionMkFile {
                path: path.to_owned(),
                mode: 0o644,
                data,
                timestamp: -1,
                ..FileActionMkFile::default()
            })),
        }],
    })
}

fn built(name: &str) -> op::Op {
    op::Op::Build(BuildOp {
        builder: -1,
        inputs: [("buildkit.llb.definition".to_owned(), BuildInput { input: 0 })]
            .into_iter()
            .collect(),
        attrs: [("llbbuild.filename".to_owned(), name.to_owned())]
            .into_iter()
            .collect(),
        ..BuildOp::default()
    })
}

#[test]
fn a_definition_that_a_build_makes_is_solved() {
    guard!();
    let daemon = Daemon::start();
    let inner = chain(vec![file("/made", b"inside\n".to_vec())]);
    let middle = chain(vec![
        file("/inner.llb", inner.encode_to_vec()),
        built("inner.llb"),
    ]);
    let outer = chain(vec![
        file("/middle.llb", middle.encode_to_vec()),
        built("middle.llb"),
    ]);
    solve_as(&daemon, "nested", outer).unwrap();
    daemon.ok(&["create", "--name", "nested", "nested:1", "/made"]);
    let out = daemon.dir.path().join("made");
    daemon.ok(&["cp", "nested:/made", &out.display().to_string()]);
    assert_eq!(std::fs::read_to_string(out).unwrap(), "inside\n");
    for (definition, words) in [
        (
            chain(vec![file("/x", b"no definition".to_vec()), built("x")]),
            "is no definition",
        ),
        (chain(vec![file("/x", Vec::new()), built("y")]), "y: no such file"),
    ] {
        let refused = solve_as(&daemon, "refused", definition).unwrap_err();
        assert!(
            refused.message().contains(words),
            "{words}: {}",
            refused.message()
        );
    }
}
