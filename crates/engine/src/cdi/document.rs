//! One file of device descriptions, as JSON or YAML. Unknown keys are errors: a key that is passed over would be a
//! device that half works.

use std::collections::BTreeSet;
use std::path::PathBuf;

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    cdi_version: String,
    kind: String,
    /// For people; no meaning to an engine.
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    devices: Vec<DeviceEntry>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeviceEntry {
    name: String,
    /// For people; no meaning to an engine.
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Bind>,
    pub(super) hooks: Vec<HookEntry>,
    #[serde(rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
    intel_rdt: Option<Value>,
    net_devices: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    pub(super) r#type: Option<String>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Bind {
    pub(super) host_path: String,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
    pub(super) r#type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HookEntry {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

/// Hooks that a container of this engine can have.
pub(super) const HOOKS: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
];

impl Document {
    pub(super) fn from_json(text: &str) -> Result<Document, String> {
        serde_json::from_str(text)
            .map_err(|error| error.to_string())
            .and_then(Document::checked)
    }

    pub(super) fn from_yaml(text: &str) -> Result<Document, String> {
        let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
        let [document] = documents.as_slice() else {
            return Err(format!(
                "one YAML document is expected, there are {}",
                documents.len()
            ));
        };
        serde_json::from_value(value(document)?)
            .map_err(|error| error.to_string())
            .and_then(Document::checked)
    }

    fn checked(self) -> Result<Document, String> {
        let mut version = self
            .cdi_version
            .trim_start_matches('v')
            .split('.')
            .map(str::parse::<u32>);
        match (version.next(), version.next()) {
            (Some(Ok(0)), Some(Ok(3..=8))) | (Some(Ok(1)), Some(Ok(0..=1))) => {}
            _ => {
                return Err(format!(
                    "cdiVersion {:?} is not one of 0.3 to 0.8, 1.0 and 1.1",
                    self.cdi_version
                ));
            }
        }
        if !is_kind(&self.kind) {
            return Err(format!(
                "kind {:?} is not of the form vendor.com/class",
                self.kind
            ));
        }
        if self.devices.is_empty() {
            return Err("devices is empty".to_owned());
        }
        let mut seen = BTreeSet::new();
        for device in &self.devices {
            let at = |reason: String| format!("device {:?}: {reason}", device.name);
            if !is_device(&device.name) {
                return Err(at("not a device name".to_owned()));
            }
            if !seen.insert(&device.name) {
                return Err(at("described twice".to_owned()));
            }
            device.container_edits.check().map_err(at)?;
        }
        self.container_edits.check()?;
        Ok(self)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.devices
            .iter()
            .map(|device| format!("{}={}", self.kind, device.name))
    }

    pub(super) fn device(&self, qualified: &str) -> Option<&Edits> {
        let name = qualified.split_once('=').map(|(_, name)| name)?;
        self.devices
            .iter()
            .find(|device| device.name == name)
            .map(|device| &device.container_edits)
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        if self.intel_rdt.is_some() || !self.net_devices.is_empty() {
            return Err("intelRdt and netDevices are not offered by this engine".to_owned());
        }
        if let Some(text) = self
            .env
            .iter()
            .find(|text| text.find('=').is_none_or(|at| at == 0))
        {
            return Err(format!("env {text:?} is not of the form name=value"));
        }
        for node in &self.device_nodes {
            let place = node.path.display();
            if !node.path.is_absolute() {
                return Err(format!("deviceNodes: {place} is not absolute"));
            }
            if !matches!(node.r#type.as_deref(), None | Some("" | "b" | "c" | "u" | "p")) {
                return Err(format!("deviceNodes: {place}: type is not one of b, c, u, p"));
            }
            if node
                .permissions
                .iter()
                .flat_map(|text| text.bytes())
                .any(|byte| !b"rwm".contains(&byte))
            {
                return Err(format!(
                    "deviceNodes: {place}: permissions are made of r, w and m"
                ));
            }
        }
        if let Some(mount) = self
            .mounts
            .iter()
            .find(|m| m.host_path.is_empty() || !m.container_path.is_absolute())
        {
            return Err(format!(
                "mounts: {} needs a hostPath and an absolute containerPath",
                mount.container_path.display()
            ));
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!(
                    "hooks: {:?} is not one of {}",
                    hook.hook_name,
                    HOOKS.join(", ")
                ));
            }
            if !hook.path.is_absolute() {
                return Err(format!("hooks: {} is not absolute", hook.path.display()));
            }
        }
        Ok(())
    }
}

/// Letter first, letter or digit last.
fn is_word(text: &str, first: fn(&u8) -> bool, between: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(first)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || between.contains(byte))
}

pub(super) fn is_kind(text: &str) -> bool {
    text.split_once('/').is_some_and(|(vendor, class)| {
        is_word(vendor, u8::is_ascii_alphabetic, b"_-.") && is_word(class, u8::is_ascii_alphabetic, b"_-")
    })
}

pub(super) fn is_device(text: &str) -> bool {
    is_word(text, u8::is_ascii_alphanumeric, b"_-.:")
}

/// The same tree in JSON's terms.
fn value(node: &Yaml<'_>) -> Result<Value, String> {
    Ok(match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(on)) => Value::from(*on),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::from(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::from(text.as_ref()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        Yaml::Mapping(members) => {
            let member = |(key, item): (&Yaml<'_>, &Yaml<'_>)| match key {
                Yaml::Value(Scalar::String(key)) => Ok((key.to_string(), value(item)?)),
                other => Err(format!("a key is not a text: {other:?}")),
            };
            Value::Object(members.iter().map(member).collect::<Result<_, _>>()?)
        }
        other => return Err(format!("this YAML has no place in a description: {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/device
devices:
- name: one
  containerEdits:
    env: [DEVICE=one]
    deviceNodes:
    - path: /dev/one
      hostPath: /dev/null
      permissions: rw
      fileMode: 0o600
    mounts:
    - {hostPath: /opt/driver, containerPath: /driver, options: [ro, bind]}
    hooks:
    - {hookName: createContainer, path: /bin/true, args: [true, "x"], timeout: 5}
    additionalGids: [44]
"#;

    #[test]
    fn yaml_in_full() {
        let text = FULL.replace("[true, \"x\"]", "[\"true\", \"x\"]");
        let document = Document::from_yaml(&text).unwrap();
        let edits = document.device("vendor.com/device=one").unwrap();
        assert_eq!(edits.device_nodes[0].file_mode, Some(0o600));
        assert_eq!(
            (edits.hooks[0].timeout, edits.additional_gids.as_slice()),
            (Some(5), &[44][..])
        );
        assert_eq!(edits.mounts[0].options, ["ro", "bind"]);
        // A word that YAML takes for something else than text.
        assert!(Document::from_yaml(FULL).unwrap_err().contains("boolean"));
    }

    #[test]
    fn what_is_refused() {
        let text = |edits: &str| {
            format!(
                r#"{{"cdiVersion":"0.5.0","kind":"v.com/c","devices":[{{"name":"x","containerEdits":{edits}}}]}}"#
            )
        };
        Document::from_json(&text("{}")).unwrap();
        for (edits, reason) in [
            (r#"{"env":["X"]}"#, "name=value"),
            (r#"{"deviceNodes":[{"path":"dev/x"}]}"#, "not absolute"),
            (
                r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rwx"}]}"#,
                "permissions",
            ),
            (r#"{"hooks":[{"hookName":"poststop","path":"/x"}]}"#, "poststop"),
            (r#"{"netDevices":[{}]}"#, "netDevices"),
            (r#"{"surprise":1}"#, "unknown field `surprise`"),
        ] {
            let error = Document::from_json(&text(edits)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        for (from, to, reason) in [
            ("0.5.0", "2.0.0", "cdiVersion"),
            ("v.com/c", "v.com", "kind"),
            ("\"x\"", "\"-x\"", "device"),
        ] {
            let error = Document::from_json(&text("{}").replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(Document::from_yaml("a: 1\n---\nb: 2\n").is_err());
    }
}
