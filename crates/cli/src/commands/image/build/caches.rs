//! `--cache-from` and `--cache-to`. A cache in a directory is laid out as OCI has it: the blobs go through the session, the
//! index is read and written here.

use crate::failure::Failure;
use crate::grammar::csv;
use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use serde_json::{Value, json};
use session::content::CACHE_STORE;
use session::control::CACHE_TOP;
use session::lend::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// By what an index names what it holds.
const NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The name where none is given.
const LATEST: &str = "latest";

/// All caches of one build.
#[derive(Debug, Default)]
pub struct Caches {
    pub imports: Vec<CacheOptionsEntry>,
    pub exports: Vec<CacheOptionsEntry>,
    /// Directories by the names that the engine has for them.
    pub stores: BTreeMap<String, Store>,
    /// Directories that get an index.
    pub written: Vec<Written>,
}

/// A directory that a cache is written to.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// Which of the exports it is.
    pub number: usize,
    pub place: PathBuf,
    /// What the cache is called there.
    pub name: String,
}

impl Written {
    /// Notes what the engine wrote. Other engines tell of one cache only; where ours tells nothing of this one, it was not
    /// written.
    pub fn note(&self, said: &HashMap<String, String>) -> Result<(), Failure> {
        let own = format!("{CACHE_TOP}.");
        let top = match said.keys().any(|key| key.starts_with(&own)) {
            true => said.get(&format!("{own}{}", self.number)),
            false => said.get("cache.manifest"),
        };
        let Some(top) = top else {
            return Ok(());
        };
        let top = serde_json::from_str(top).map_err(|error| {
            Failure::text(format!(
                "the engine's word about the cache cannot be read: {error}"
            ))
        })?;
        note(&self.place, &top, std::slice::from_ref(&self.name))
    }
}

/// A directory as it is lent.
pub fn store(place: &Path, writable: bool) -> Store {
    let place = place.to_owned();
    Store { place, writable }
}

/// `type=KIND,key=value…`, or the name of an image.
fn read(text: &str) -> Result<CacheOptionsEntry, Failure> {
    let bad = |why: String| Failure::text(format!("invalid cache {text:?}: {why}"));
    let registry = |name: &str| CacheOptionsEntry {
        r#type: "registry".to_owned(),
        attrs: HashMap::from([("ref".to_owned(), name.to_owned())]),
    };
    if !text.contains('=') {
        return Ok(registry(text));
    }
    let mut attrs = HashMap::new();
    for field in csv::fields(text).map_err(bad)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(bad(format!("{field:?} is no key=value")));
        };
        attrs.insert(key.trim().to_lowercase(), value.to_owned());
    }
    match attrs.remove("type") {
        Some(kind) => Ok(CacheOptionsEntry { r#type: kind, attrs }),
        None => Err(bad("type is required".to_owned())),
    }
}

impl Caches {
    pub fn of(from: &[String], to: &[String]) -> Result<Caches, Failure> {
        let mut caches = Caches::default();
        // A name with options is one, whatever is between its commas.
        let from = from.iter().flat_map(|text| match text.contains('=') {
            true => vec![text.as_str()],
            false => text.split(',').filter(|name| !name.is_empty()).collect(),
        });
        for text in from {
            let mut entry = read(text)?;
            if entry.r#type == "local" {
                let Some(place) = entry.attrs.get("src").cloned() else {
                    return Err(Failure::text(format!(
                        "invalid cache {text:?}: src is required for type=local"
                    )));
                };
                if !entry.attrs.contains_key("digest") {
                    let name = entry.attrs.get("tag").map_or(LATEST, String::as_str);
                    match find(Path::new(&place), name)? {
                        Some(digest) => entry.attrs.insert("digest".to_owned(), digest),
                        None => {
                            // The first build of many has no cache to read.
                            eprintln!("WARNING: there is no cache {name} in {place}");
                            continue;
                        }
                    };
                }
                caches
                    .stores
                    .insert(format!("{CACHE_STORE}{place}"), store(Path::new(&place), false));
            }
            caches.imports.push(entry);
        }
        for text in to {
            let entry = read(text)?;
            if entry.r#type == "local" {
                let Some(place) = entry.attrs.get("dest").cloned() else {
                    return Err(Failure::text(format!(
                        "invalid cache {text:?}: dest is required for type=local"
                    )));
                };
                let name = entry.attrs.get("tag").map_or(LATEST, String::as_str).to_owned();
                caches
                    .stores
                    .insert(format!("{CACHE_STORE}{place}"), store(Path::new(&place), true));
                caches.written.push(Written {
                    number: caches.exports.len(),
                    place: PathBuf::from(place),
                    name,
                });
            }
            caches.exports.push(entry);
        }
        Ok(caches)
    }
}

type Index = serde_json::Map<String, Value>;

fn index(place: &Path) -> Result<Option<Index>, Failure> {
    let path = place.join("index.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::text(format!("cannot read {}: {error}", path.display()))),
    };
    let bad = |why: String| Failure::text(format!("{} is no index: {why}", path.display()));
    match serde_json::from_slice::<Value>(&text).map_err(|error| bad(error.to_string()))? {
        Value::Object(index) => Ok(Some(index)),
        _ => Err(bad("it is no object".to_owned())),
    }
}

fn manifests(index: &Index) -> Vec<Value> {
    let found = index.get("manifests").and_then(Value::as_array);
    found.cloned().unwrap_or_default()
}

fn is_called(descriptor: &Value, name: &str) -> bool {
    let annotations = descriptor.get("annotations");
    annotations.and_then(|all| all.get(NAME)).and_then(Value::as_str) == Some(name)
}

/// The digest of what a directory in OCI's layout holds under a name.
pub fn find(place: &Path, name: &str) -> Result<Option<String>, Failure> {
    let Some(index) = index(place)? else {
        return Ok(None);
    };
    let manifests = manifests(&index);
    let found = manifests.iter().find(|descriptor| is_called(descriptor, name));
    // A single one needs no name.
    let found = found.or(match manifests.as_slice() {
        [only] if name == LATEST => Some(only),
        _ => None,
    });
    let digest = found.and_then(|descriptor| descriptor.get("digest"));
    Ok(digest.and_then(Value::as_str).map(str::to_owned))
}

/// Notes in a directory in OCI's layout what lies there under these names; what had one of them before has none any more,
/// and everything else of the index stays. Of several that note something at once, one waits for the other.
pub fn note(place: &Path, descriptor: &Value, names: &[String]) -> Result<(), Failure> {
    let Value::Object(descriptor) = descriptor else {
        return Err(Failure::text(format!(
            "what the engine says lies in {} is no descriptor: {descriptor}",
            place.display()
        )));
    };
    let names: BTreeSet<&String> = names.iter().collect();
    let locked = std::fs::File::open(place).and_then(|directory| directory.lock().map(|()| directory));
    let _locked =
        locked.map_err(|error| Failure::text(format!("cannot lock {}: {error}", place.display())))?;
    let mut index = index(place)?.unwrap_or_default();
    let mut all = manifests(&index);
    all.retain(|known| !names.iter().any(|name| is_called(known, name)));
    for name in names {
        let mut descriptor = descriptor.clone();
        let known = descriptor.get("annotations").and_then(Value::as_object);
        let mut annotations = known.cloned().unwrap_or_default();
        annotations.insert(NAME.to_owned(), json!(name));
        descriptor.insert("annotations".to_owned(), Value::Object(annotations));
        all.push(Value::Object(descriptor));
    }
    index.entry("schemaVersion").or_insert(json!(2));
    index.entry("mediaType").or_insert(json!(INDEX));
    index.insert("manifests".to_owned(), Value::Array(all));
    let write = |name: &str, text: String| {
        let draft = place.join(format!(".{name}.{}", spec::Id::random().short()));
        let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, place.join(name)));
        written
            .map_err(|error| Failure::text(format!("cannot write {}: {error}", place.join(name).display())))
    };
    write("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    write("index.json", Value::Object(index).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_knows_what_was_noted_last() {
        let dir = tempfile::tempdir().unwrap();
        let one = |digest: &str| json!({"digest": digest, "size": 1, "mediaType": "x"});
        assert_eq!(find(dir.path(), "latest").unwrap(), None);
        note(dir.path(), &one("sha256:a"), &["latest".to_owned()]).unwrap();
        note(dir.path(), &one("sha256:b"), &["other".to_owned()]).unwrap();
        note(dir.path(), &one("sha256:c"), &["latest".to_owned()]).unwrap();
        let found = |name: &str| find(dir.path(), name).unwrap();
        assert_eq!(found("latest").as_deref(), Some("sha256:c"));
        assert_eq!(found("other").as_deref(), Some("sha256:b"));
        assert_eq!(found("nosuch"), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_engine_that_tells_nonsense_gets_no_index() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["latest".to_owned()];
        for nonsense in [json!(1), json!("text"), json!([1]), json!(null)] {
            let said = note(dir.path(), &nonsense, &names).unwrap_err().message;
            assert!(said.contains("no descriptor"), "{said}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for annotations in [json!("text"), json!([1]), json!(null)] {
            let descriptor = json!({"digest": "sha256:a", "annotations": annotations});
            note(dir.path(), &descriptor, &names).unwrap();
            assert_eq!(find(dir.path(), "latest").unwrap().as_deref(), Some("sha256:a"));
        }
        let descriptor = json!({"digest": "sha256:a", "annotations": {"kept": "yes"}});
        note(dir.path(), &descriptor, &names).unwrap();
        let noted = index(dir.path()).unwrap().unwrap();
        assert_eq!(noted["manifests"][0]["annotations"]["kept"], "yes");
    }

    #[test]
    fn each_cache_is_noted_where_it_was_written() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let written = |number, dir: &tempfile::TempDir| Written {
            number,
            place: dir.path().to_owned(),
            name: LATEST.to_owned(),
        };
        let mut said = HashMap::from([
            ("cache.manifest".to_owned(), r#"{"digest":"sha256:b"}"#.to_owned()),
            (format!("{CACHE_TOP}.0"), r#"{"digest":"sha256:a"}"#.to_owned()),
            (format!("{CACHE_TOP}.1"), r#"{"digest":"sha256:b"}"#.to_owned()),
        ]);
        written(0, &one).note(&said).unwrap();
        written(1, &two).note(&said).unwrap();
        let found = |dir: &tempfile::TempDir| find(dir.path(), LATEST).unwrap();
        assert_eq!(found(&one).as_deref(), Some("sha256:a"));
        assert_eq!(found(&two).as_deref(), Some("sha256:b"));
        // One that was not written is none of the others.
        said.remove(&format!("{CACHE_TOP}.0"));
        written(0, &one).note(&said).unwrap();
        assert_eq!(found(&one).as_deref(), Some("sha256:a"));
        said.remove(&format!("{CACHE_TOP}.1"));
        written(0, &one).note(&said).unwrap();
        assert_eq!(found(&one).as_deref(), Some("sha256:b"));
    }

    #[test]
    fn what_else_an_index_says_stays() {
        let dir = tempfile::tempdir().unwrap();
        let old = json!({"schemaVersion": 2, "mediaType": "y", "annotations": {"a": "b"}, "manifests": []});
        std::fs::write(dir.path().join("index.json"), old.to_string()).unwrap();
        // Two images may have one tag.
        let names = ["1", "2", "1"].map(str::to_owned);
        note(dir.path(), &json!({"digest": "sha256:a"}), &names).unwrap();
        let noted = index(dir.path()).unwrap().unwrap();
        assert_eq!(
            (&noted["annotations"]["a"], &noted["mediaType"]),
            (&json!("b"), &json!("y"))
        );
        assert_eq!(manifests(&noted).len(), 2);
        std::fs::write(dir.path().join("index.json"), "[]").unwrap();
        let said = note(dir.path(), &json!({"digest": "sha256:a"}), &names)
            .unwrap_err()
            .message;
        assert!(said.contains("is no index"), "{said}");
    }

    #[test]
    fn builds_that_note_something_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let note_many = |thread: usize| {
            for number in 0..50 {
                let names = [format!("{thread}-{number}")];
                note(dir.path(), &json!({"digest": "sha256:a"}), &names).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || note_many(thread));
            }
        });
        let noted = index(dir.path()).unwrap().unwrap();
        assert_eq!(manifests(&noted).len(), 200);
    }

    #[test]
    fn caches_are_read() {
        let dir = tempfile::tempdir().unwrap();
        note(dir.path(), &json!({"digest": "sha256:a"}), &["latest".to_owned()]).unwrap();
        let place = dir.path().display().to_string();
        let texts = |list: &[String]| list.to_vec();
        let from = texts(&["a,b".to_owned(), format!("type=local,src={place}")]);
        let caches = Caches::of(&from, &[format!("type=local,dest={place},mode=max")]).unwrap();
        assert_eq!(caches.imports.len(), 3);
        assert_eq!(caches.imports[2].attrs["digest"], "sha256:a");
        assert_eq!(caches.exports[0].attrs["mode"], "max");
        let written = |number, name: &str| Written {
            number,
            place: dir.path().to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(caches.written, [written(0, "latest")]);
        assert!(caches.stores[&format!("{CACHE_STORE}{place}")].writable);
        let several = [
            format!("type=local,dest={place}"),
            "type=inline".to_owned(),
            format!("type=local,dest={place},tag=other"),
        ];
        let several = Caches::of(&[], &several).unwrap();
        assert_eq!(several.written, [written(0, "latest"), written(2, "other")]);
        let read = Caches::of(&from, &[]).unwrap();
        assert!(!read.stores[&format!("{CACHE_STORE}{place}")].writable);
        for text in ["type=local", "type=local,x", "mode=max"] {
            assert!(Caches::of(&[], &[text.to_owned()]).is_err(), "{text}");
        }
        assert!(
            Caches::of(&["type=local,src=/nosuch".to_owned()], &[])
                .unwrap()
                .imports
                .is_empty()
        );
    }
}
