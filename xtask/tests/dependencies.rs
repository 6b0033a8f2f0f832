//! The dependency policy, held against what is really linked: `deny.toml` is the one list of licences and bans,
//! `docs/dependencies.md` the one list of reasons.
//!
//! cargo-deny reads the same file and checks advisories as well; it needs its database from the network, so it is
//! a tool beside the tests and not one of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn policy() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

/// A crate that others wrote and that some target of the policy links.
struct Foreign {
    name: String,
    licence: String,
    source: String,
}

fn foreign() -> Vec<Foreign> {
    let targets = policy();
    let targets = targets["graph"]["targets"].as_array().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root());
    for target in targets {
        command.args(["--filter-platform", target.as_str().unwrap()]);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !package["source"].is_null())
        .map(|package| Foreign {
            name: text(package, "name"),
            licence: text(package, "license"),
            source: text(package, "source"),
        })
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences alone.
fn permitted(expression: &str, allowed: &[spdx::Licensee]) -> bool {
    // Some crates still separate alternatives by a slash, as the registry once allowed.
    let mode = spdx::ParseMode {
        allow_slash_as_or_operator: true,
        ..spdx::ParseMode::STRICT
    };
    let Ok(expression) = spdx::Expression::parse_mode(expression, mode) else {
        return false;
    };
    expression.evaluate(|requirement| allowed.iter().any(|licensee| licensee.satisfies(requirement)))
}

fn allowed() -> Vec<spdx::Licensee> {
    policy()["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| spdx::Licensee::parse(name.as_str().unwrap()).unwrap())
        .collect()
}

#[test]
fn licences_are_permissive() {
    let allowed = allowed();
    let refused: Vec<String> = foreign()
        .iter()
        .filter(|dependency| !permitted(&dependency.licence, &allowed))
        .map(|dependency| format!("{}: {:?}", dependency.name, dependency.licence))
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn the_policy_refuses_what_it_should() {
    let allowed = allowed();
    for (expression, expected) in [
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("MIT/Apache-2.0", true),
        ("LGPL-2.1-or-later", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("", false),
        ("Some words", false),
    ] {
        assert_eq!(permitted(expression, &allowed), expected, "{expression:?}");
    }
}

#[test]
fn nothing_banned_and_nothing_from_elsewhere() {
    let policy = policy();
    let banned: BTreeSet<&str> = policy["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    for dependency in foreign() {
        assert!(
            !banned.contains(dependency.name.as_str()),
            "{} is banned by deny.toml",
            dependency.name
        );
        assert!(
            dependency.source.starts_with("registry+"),
            "{} comes from {}; only the registry is allowed",
            dependency.name,
            dependency.source
        );
    }
}

/// A dependency without a reason is one nobody decided on.
#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let reasons = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let named: BTreeSet<&str> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|names| names.split([',', '(', ')', ' ']))
        .filter(|name| !name.is_empty())
        .collect();
    for (name, value) in manifest["workspace"]["dependencies"].as_table().unwrap() {
        let ours = value.get("path").is_some();
        assert!(
            ours || named.contains(name.as_str()),
            "{name} has no line in docs/dependencies.md"
        );
    }
}
