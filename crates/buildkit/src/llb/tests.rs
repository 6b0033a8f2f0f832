use bollard_buildkit_proto::pb::{Input, Op, op};
use build::recipe::{Action, FileChange};
use prost::Message;
use spec::Digest;

use super::read::{Read, read};
use super::*;
use crate::error::Failure;
use crate::session::Directory;

macro_rules! fixtures {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../fixtures/", $name, ".llb")))),*]
    };
}

const FIXTURES: &[(&str, &[u8])] = fixtures![
    "exec", "command", "output", "file", "tree", "merge", "diff", "together", "http", "git", "local",
];

fn definition(name: &str) -> Definition {
    let bytes = FIXTURES.iter().find(|(known, _)| *known == name).unwrap().1;
    Definition::decode(bytes).unwrap()
}

fn understood(definition: &Definition) -> Result<Read, Failure> {
    let (layouts, built) = (HashMap::new(), HashMap::new());
    let known = read::Known {
        results: &|_| Ok(None),
        layouts: &layouts,
        built: &built,
    };
    read(definition, &known)
}

fn action(name: &str, at: usize) -> Action {
    understood(&definition(name)).unwrap().recipe.operations[at]
        .action
        .clone()
}

#[test]
fn what_a_real_client_sends_is_understood() {
    for (name, _) in FIXTURES {
        let read = understood(&definition(name)).unwrap();
        assert!(!read.recipe.operations.is_empty(), "{name}");
        for (at, operation) in read.recipe.operations.iter().enumerate() {
            let inputs: Vec<usize> = match &operation.action {
                Action::Merge(inputs) => inputs.iter().flatten().map(|input| input.operation).collect(),
                Action::Exec(exec) => exec
                    .mounts
                    .iter()
                    .filter_map(|mount| mount.input)
                    .map(|input| input.operation)
                    .collect(),
                _ => Vec::new(),
            };
            assert!(
                inputs.iter().all(|input| *input < at),
                "{name}: {inputs:?} before {at}"
            );
        }
    }
}

#[test]
fn a_command_has_what_was_said_of_it() {
    let read = understood(&definition("command")).unwrap();
    let last = read.recipe.operations.last().unwrap();
    assert_eq!(last.title, "the command");
    let Action::Exec(exec) = &last.action else {
        panic!("{last:?}")
    };
    assert_eq!(
        (exec.cwd.as_str(), exec.good_codes.as_slice()),
        ("/srv", &[3][..])
    );
    assert!(exec.env.contains(&"A=b c".to_owned()), "{:?}", exec.env);
    let targets: Vec<(&str, Option<usize>)> = exec
        .mounts
        .iter()
        .map(|mount| (mount.target.as_str(), mount.output))
        .collect();
    assert!(
        targets.contains(&("/", Some(0))) && targets.contains(&("/in", None)),
        "{targets:?}"
    );
    let cache = exec.mounts.iter().find(|mount| mount.target == "/cache").unwrap();
    assert_eq!(cache.mount.id.as_deref(), Some("one"));
}

#[test]
fn sources_are_what_they_name() {
    assert!(matches!(action("http", 0), Action::Web(web) if web.name == "name" && web.mode == 0o600));
    assert!(
        matches!(action("git", 0), Action::Git { source, .. } if source == "http://127.0.0.1:1/repo.git#main")
    );
    let read = understood(&definition("local")).unwrap();
    let Some(Directory::Session {
        name,
        include,
        exclude,
        ..
    }) = read.directories.values().next()
    else {
        panic!("{read:?}");
    };
    assert_eq!(
        (name.as_str(), include.as_slice(), exclude.as_slice()),
        ("context", &["greeting".to_owned()][..], &["x".to_owned()][..])
    );
}

#[test]
fn changes_of_files_follow_each_other() {
    let read = understood(&definition("tree")).unwrap();
    let changes: Vec<&FileChange> = read
        .recipe
        .operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Files(actions) => Some(actions.iter().map(|action| &action.change)),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(
        changes.iter().any(|change| matches!(change, FileChange::Link { goal, path, .. } if goal == "/a/b/c" && path == "/link")),
        "{changes:?}"
    );
    assert!(
        changes
            .iter()
            .any(|change| matches!(change, FileChange::Remove { wildcard: true, .. }))
    );
}

/// A definition of these operations, the last of which is wanted.
fn of(ops: &[Op]) -> Definition {
    let mut def: Vec<Vec<u8>> = ops.iter().map(Message::encode_to_vec).collect();
    let digest = def
        .last()
        .map(|last| Digest::sha256(last).to_string())
        .unwrap_or_default();
    let end = Op {
        inputs: vec![Input { digest, index: 0 }],
        ..Op::default()
    };
    def.push(end.encode_to_vec());
    Definition {
        def,
        ..Definition::default()
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let source = |identifier: &str| Op {
        op: Some(op::Op::Source(bollard_buildkit_proto::pb::SourceOp {
            identifier: identifier.to_owned(),
            ..Default::default()
        })),
        ..Op::default()
    };
    let missing = Op {
        inputs: vec![Input {
            digest: Digest::sha256(b"nothing").to_string(),
            index: 0,
        }],
        ..source("local://x")
    };
    let exec = Op {
        op: Some(op::Op::Exec(Default::default())),
        ..Op::default()
    };
    let merge = Op {
        op: Some(op::Op::Merge(bollard_buildkit_proto::pb::MergeOp {
            inputs: vec![bollard_buildkit_proto::pb::MergeInput { input: 7 }],
        })),
        ..Op::default()
    };
    for (definition, part) in [
        (of(&[source("oci-layout://x")]), "needs the session"),
        (of(&[missing]), "does not hold it"),
        (of(&[exec]), "has no arguments"),
        (of(&[merge]), "uses its input 7 and has 0"),
        (of(&[Op::default()]), "unknown kind"),
        (Definition::default(), "is empty"),
        (
            Definition {
                def: vec![source("local://x").encode_to_vec()],
                ..Definition::default()
            },
            "does not end",
        ),
        (
            Definition {
                def: vec![b"\xff\xff\xff".to_vec()],
                ..Definition::default()
            },
            "cannot be read",
        ),
    ] {
        let message = understood(&definition).unwrap_err().message;
        assert!(message.contains(part), "{message} does not say {part}");
    }
}

/// Whatever is changed in a definition, it is understood or refused, and what is understood uses only what is there. With the
/// operations named anew, a change of one reaches those that use it.
#[test]
fn fuzz_definition() {
    let words = [
        "sha256:",
        "/",
        "..",
        "local://",
        "git://",
        "docker-image://",
        "\u{8}\u{1}",
        "\u{0}",
    ];
    fuzz::target!("fixtures").words(&words).run(|bytes| {
        let Ok(mut definition) = Definition::decode(bytes) else {
            return "no definition".to_owned();
        };
        let as_it_is = judged(&definition);
        relink(&mut definition);
        format!("{as_it_is}; {}", judged(&definition))
    });
}

fn judged(definition: &Definition) -> String {
    let read = understood(definition).map_err(|failure| failure.message);
    if let Ok(read) = &read {
        assert!(read.recipe.wanted.operation < read.recipe.operations.len());
    }
    fuzz::outcome(&read)
}

/// Names the operations by their digests again, so that a change of one reaches those that use it.
fn relink(definition: &mut Definition) {
    let before: Vec<String> = (0..definition.def.len())
        .map(|at| Digest::sha256(&definition.def[at]).to_string())
        .collect();
    let originals = before.clone();
    for at in 0..definition.def.len() {
        let Ok(mut op) = Op::decode(definition.def[at].as_slice()) else {
            continue;
        };
        for input in &mut op.inputs {
            if let Some(known) = originals.iter().position(|digest| *digest == input.digest) {
                input.digest = Digest::sha256(&definition.def[known]).to_string();
            } else if at > 0 {
                input.digest = Digest::sha256(&definition.def[at - 1]).to_string();
            }
        }
        definition.def[at] = op.encode_to_vec();
    }
}

/// Operations as a client sends them; the last one ends the definition.
fn of_operations(ops: Vec<Op>) -> Definition {
    Definition {
        def: ops.iter().map(Message::encode_to_vec).collect(),
        ..Definition::default()
    }
}

#[test]
fn layouts_are_told_apart_by_their_operations() {
    let identifier = format!("oci-layout://x@{}", Digest::sha256(b"image"));
    let layout = |store: &str| Op {
        op: Some(op::Op::Source(bollard_buildkit_proto::pb::SourceOp {
            identifier: identifier.clone(),
            attrs: [("oci.store".to_owned(), store.to_owned())].into(),
        })),
        ..Op::default()
    };
    let input = |op: &Op| Input {
        digest: Digest::sha256(&op.encode_to_vec()).to_string(),
        index: 0,
    };
    let (one, two, unused) = (layout("one"), layout("two"), layout("unused"));
    let merge = Op {
        inputs: vec![input(&one), input(&two)],
        op: Some(op::Op::Merge(bollard_buildkit_proto::pb::MergeOp {
            inputs: [0, 1]
                .map(|input| bollard_buildkit_proto::pb::MergeInput { input })
                .to_vec(),
        })),
        ..Op::default()
    };
    let end = Op {
        inputs: vec![input(&merge)],
        ..Op::default()
    };
    let definition = of_operations(vec![unused, one, two, merge, end]);
    let nodes = graph::order(&definition).unwrap().nodes;
    let layouts: HashMap<String, String> = source::layouts(&nodes)
        .map(|(node, source)| (node.digest.clone(), source.attrs["oci.store"].clone()))
        .collect();
    assert_eq!(layouts.len(), 2, "what nothing uses is not fetched: {layouts:?}");
    let known = read::Known {
        results: &|_| Ok(None),
        layouts: &layouts,
        built: &HashMap::new(),
    };
    let read = read(&definition, &known).unwrap();
    let images: Vec<&str> = read
        .recipe
        .operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Image { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(images, ["one", "two"]);
}
