//! `--output`: what becomes of a build's result. `DIRECTORY` and `-` are short for the files in a directory and as an archive.

use crate::failure::Failure;
use crate::flags::Matches;
use crate::grammar::csv;
use crate::terminal;
use session::control::is_on;
use session::lend::Output;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// One exporter of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exporter {
    pub kind: String,
    pub attributes: HashMap<String, String>,
}

/// All of them, and what they need of the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    pub exporters: Vec<Exporter>,
    pub lent: BTreeMap<usize, Output>,
    /// The directory of an image in OCI's layout.
    pub layout: Option<Layout>,
}

/// A directory that an image is written to blob by blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Which of the exporters writes it.
    pub number: usize,
    pub place: PathBuf,
}

/// Whether a kind makes an image, which has names.
fn is_image(kind: &str) -> bool {
    matches!(kind, "moby" | "image" | "oci" | "docker")
}

fn read(text: &str) -> Result<(String, BTreeMap<String, String>), Failure> {
    let bad = |why: String| Failure::text(format!("invalid output {text:?}: {why}"));
    let fields = csv::fields(text).map_err(bad)?;
    if let [only] = fields.as_slice()
        && !only.contains('=')
    {
        let kind = if only == "-" { "tar" } else { "local" };
        return Ok((
            kind.to_owned(),
            BTreeMap::from([("dest".to_owned(), only.clone())]),
        ));
    }
    let mut options = BTreeMap::new();
    for field in &fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(bad(format!("{field:?} is no key=value")));
        };
        options.insert(key.trim().to_lowercase(), value.to_owned());
    }
    match options.remove("type") {
        Some(kind) => Ok((kind, options)),
        None => Err(bad("type is required".to_owned())),
    }
}

impl Outputs {
    /// Those that the flags ask for.
    pub fn of(matches: &Matches, names: &[spec::Reference]) -> Result<Outputs, Failure> {
        let mut outputs = Outputs::default();
        let mut nothing = false;
        for text in matches.list("output") {
            let (kind, options) = read(text)?;
            nothing |= kind == "cacheonly";
            outputs.add(&kind, options)?;
        }
        let (load, push) = (matches.bool("load"), matches.bool("push"));
        if push
            && let Some(image) = outputs
                .exporters
                .iter_mut()
                .find(|e| matches!(e.kind.as_str(), "image" | "moby"))
        {
            image.attributes.insert("push".to_owned(), "true".to_owned());
        } else if push || load || (outputs.exporters.is_empty() && !nothing) {
            let mut attributes = HashMap::new();
            if push {
                attributes.insert("push".to_owned(), "true".to_owned());
            }
            let kind = "moby".to_owned();
            outputs.exporters.push(Exporter { kind, attributes });
        }
        let files = |exporter: &Exporter| matches!(exporter.kind.as_str(), "local" | "tar");
        if matches.text("iidfile").is_some() && outputs.exporters.iter().all(files) && !nothing {
            return Err(
                Failure::text("local and tar exporters are incompatible with image ID file")
                    .hint("add an output that makes an image, or leave --iidfile out"),
            );
        }
        for exporter in outputs
            .exporters
            .iter_mut()
            .filter(|exporter| is_image(&exporter.kind))
        {
            finish(exporter, matches, names)?;
        }
        Ok(outputs)
    }

    fn add(&mut self, kind: &str, mut options: BTreeMap<String, String>) -> Result<(), Failure> {
        let number = self.exporters.len();
        let dest = options.remove("dest").filter(|dest| !dest.is_empty());
        let split = options.get("tar").is_some_and(|value| !is_on(value));
        let is_directory = kind == "local" || matches!(kind, "oci" | "docker") && split;
        if let Some(dest) = dest.as_deref().filter(|_| is_directory) {
            directory(kind, dest)?;
        }
        let kind = match (kind, &dest) {
            ("cacheonly", _) => return Ok(()),
            ("local", None) => return Err(Failure::text("dest is required for local output")),
            ("local", Some(dest)) => {
                self.lent.insert(number, Output::Directory(PathBuf::from(dest)));
                "local"
            }
            ("oci" | "docker", None) if split => {
                return Err(Failure::text(format!(
                    "dest is required for {kind} output with tar=false"
                )));
            }
            ("oci" | "docker", Some(dest)) if split => {
                if let Some(first) = &self.layout {
                    return Err(Failure::text(format!(
                        "only one output can be a directory in OCI's layout, and {} and {dest} are two",
                        first.place.display()
                    ))
                    .hint("copy the directory, or write the others as archives (without tar=false)"));
                }
                let place = PathBuf::from(dest);
                self.layout = Some(Layout { number, place });
                kind
            }
            ("tar" | "oci", _) | ("docker", Some(_)) => {
                let file = file(kind, dest.as_deref())?;
                if file == Output::Stdout && self.takes_stdout() {
                    return Err(Failure::text("multiple outputs configured to write to stdout")
                        .hint("write all but one to a file: dest=FILE"));
                }
                self.lent.insert(number, file);
                kind
            }
            ("docker" | "moby", None) => "moby",
            ("registry", None) => {
                options.insert("push".to_owned(), "true".to_owned());
                "image"
            }
            ("image", None) => "image",
            ("image" | "registry" | "moby", Some(_)) => {
                return Err(Failure::text(format!("dest not supported for {kind} output")));
            }
            (other, _) => {
                return Err(Failure::text(format!(
                    "unknown type of output {other:?}: use local, tar, oci, docker, image, registry or cacheonly"
                )));
            }
        };
        self.exporters.push(Exporter {
            kind: kind.to_owned(),
            attributes: options.into_iter().collect(),
        });
        Ok(())
    }

    /// Whether the standard output is taken.
    pub fn takes_stdout(&self) -> bool {
        self.lent.values().any(|output| *output == Output::Stdout)
    }
}

/// Checks where files are to be written one by one.
fn directory(kind: &str, dest: &str) -> Result<(), Failure> {
    if dest == "-" {
        return Err(Failure::text(format!("dest cannot be stdout for {kind} output"))
            .hint("files go into a directory; a directory of this name is written ./-"));
    }
    match std::fs::metadata(dest) {
        Ok(meta) if !meta.is_dir() => Err(Failure::text(format!(
            "destination of the {kind} output is a file: {dest}"
        ))),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::text(format!(
            "invalid destination of the {kind} output: {dest}: {error}"
        ))),
        _ => Ok(()),
    }
}

fn file(kind: &str, dest: Option<&str>) -> Result<Output, Failure> {
    match dest {
        None | Some("-") if terminal::stdout_is_terminal() => Err(Failure::text(format!(
            "dest file is required for {kind} output: it is not written to a terminal"
        ))),
        None | Some("-") => Ok(Output::Stdout),
        Some(path) => {
            let path = PathBuf::from(path);
            let above = match path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            if path.is_dir() {
                return Err(Failure::text(format!(
                    "destination of the {kind} output is a directory: {}",
                    path.display()
                )));
            }
            if !above.is_dir() {
                return Err(Failure::text(format!(
                    "cannot write the {kind} output {}: there is no directory {}",
                    path.display(),
                    above.display()
                ))
                .hint("make the directory, or name another one with dest="));
            }
            Ok(Output::File(path))
        }
    }
}

/// Names, annotations and times of an image.
fn finish(exporter: &mut Exporter, matches: &Matches, names: &[spec::Reference]) -> Result<(), Failure> {
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let name = exporter.attributes.entry("name".to_owned());
        name.or_insert_with(|| names.join(","));
    }
    if matches.bool("rewrite-timestamp") {
        exporter
            .attributes
            .insert("rewrite-timestamp".to_owned(), "true".to_owned());
    }
    for text in matches.list("annotation") {
        let (attributes, value) = annotation(text)?;
        let said = attributes.into_iter().map(|attribute| (attribute, value.clone()));
        exporter.attributes.extend(said);
    }
    Ok(())
}

/// `[PLACE[,PLACE…]:]KEY=VALUE`, as attributes of an exporter and their value. A place is a kind, or a platform in brackets, or
/// both: `manifest`, `manifest[linux/arm64]`, `[linux/arm64]`.
fn annotation(text: &str) -> Result<(Vec<String>, String), Failure> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(Failure::text(format!(
            "invalid annotation {text:?}: expected [TYPE:]KEY=VALUE"
        )));
    };
    // Keys have colons, too: what is no list of places belongs to the key.
    let places = key.split_once(':').and_then(|(before, key)| {
        let places: Option<Vec<_>> = before.split(',').map(place).collect();
        Some((places?, key))
    });
    let Some((places, key)) = places else {
        return Ok((vec![format!("annotation.{key}")], value.to_owned()));
    };
    if key.is_empty() {
        return Err(Failure::text(format!(
            "invalid annotation {text:?}: it has no name"
        )));
    }
    let attribute = |(kind, platform): &(&str, Option<&str>)| match (*kind, platform) {
        ("", Some(platform)) => Ok(format!("annotation[{platform}].{key}")),
        ("manifest" | "manifest-descriptor", Some(platform)) => {
            Ok(format!("annotation-{kind}[{platform}].{key}"))
        }
        // An index is of all platforms.
        ("manifest" | "manifest-descriptor" | "index" | "index-descriptor", _) => {
            Ok(format!("annotation-{kind}.{key}"))
        }
        _ => Err(Failure::text(format!(
            "unknown annotation type {kind:?} in {text:?}: use manifest, manifest-descriptor, index or index-descriptor"
        ))),
    };
    let attributes = places.iter().map(attribute).collect::<Result<_, _>>()?;
    Ok((attributes, value.to_owned()))
}

/// The kind and the platform of a place; `None` for what is none.
fn place(text: &str) -> Option<(&str, Option<&str>)> {
    let (kind, platform) = match text.strip_suffix(']') {
        Some(text) => {
            let (kind, platform) = text.split_once('[')?;
            (kind, Some(platform))
        }
        None => (text, None),
    };
    let letters = |c: char| c.is_ascii_lowercase() || c == '-';
    kind.chars().all(letters).then_some((kind, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Outputs, Failure> {
        let mut outputs = Outputs::default();
        for text in texts {
            let (kind, options) = read(text)?;
            outputs.add(&kind, options)?;
        }
        Ok(outputs)
    }

    #[test]
    fn outputs_are_read() {
        let outputs = of(&[
            "out",
            "type=oci,dest=/tmp/image.tar,compression=zstd",
            "type=registry,name=a/b",
            "type=docker",
            "type=oci,dest=layout,tar=false",
            "type=cacheonly",
        ])
        .unwrap();
        let kinds: Vec<&str> = outputs.exporters.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["local", "oci", "image", "moby", "oci"]);
        assert_eq!(outputs.lent[&0], Output::Directory("out".into()));
        assert_eq!(outputs.lent[&1], Output::File("/tmp/image.tar".into()));
        assert_eq!(outputs.lent.len(), 2);
        let layout = Layout {
            number: 4,
            place: "layout".into(),
        };
        assert_eq!(outputs.layout, Some(layout));
        assert_eq!(outputs.exporters[1].attributes["compression"], "zstd");
        assert_eq!(outputs.exporters[2].attributes["push"], "true");
    }

    #[test]
    fn a_second_layout_is_refused() {
        for second in [
            "type=oci,dest=two,tar=false",
            "type=docker,dest=two,tar=False",
            "type=docker,dest=two,tar=no",
        ] {
            let said = of(&["type=oci,dest=one,tar=false", second]).unwrap_err().message;
            assert!(said.contains("one and two"), "{second}: {said}");
        }
    }

    #[test]
    fn a_layout_is_no_archive() {
        let one = of(&["type=docker,dest=one,tar=0"]).unwrap();
        assert_eq!(one.layout.unwrap().place, PathBuf::from("one"));
        assert_eq!((one.lent.len(), one.exporters[0].kind.as_str()), (0, "docker"));
        for archive in ["true", "1", "T", ""] {
            let text = format!("type=oci,dest=one,tar={archive}");
            assert_eq!(of(&[&text]).unwrap().layout, None, "{text}");
        }
        for kind in ["oci", "docker"] {
            let said = of(&[&format!("type={kind},tar=false")]).unwrap_err().message;
            assert!(said.contains("dest is required"), "{said}");
        }
    }

    #[test]
    fn annotations_say_where_they_belong() {
        let of = |text: &str| annotation(text).unwrap();
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(of("org.a=b=c"), (all(&["annotation.org.a"]), "b=c".to_owned()));
        assert_eq!(of("org.a:x=b").0, ["annotation.org.a:x"]);
        assert_eq!(
            of("index,manifest-descriptor:org.a=b").0,
            ["annotation-index.org.a", "annotation-manifest-descriptor.org.a"]
        );
        assert_eq!(
            of("manifest[linux/arm64]:org.a=").0,
            ["annotation-manifest[linux/arm64].org.a"]
        );
        assert_eq!(
            of("[linux/arm/v7]:org.a:b=c").0,
            ["annotation[linux/arm/v7].org.a:b"]
        );
        assert_eq!(
            of("index[linux/arm64],manifest[linux/amd64],manifest-descriptor:org.a=b").0,
            [
                "annotation-index.org.a",
                "annotation-manifest[linux/amd64].org.a",
                "annotation-manifest-descriptor.org.a"
            ]
        );
        for text in [
            "x",
            "=y",
            "list:a=b",
            "index,:a=b",
            "[linux/arm64]:=b",
            "list[linux/arm64]:a=b",
        ] {
            let said = annotation(text).unwrap_err().message;
            assert!(said.contains(&format!("{text:?}")), "{text}: {said}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (text, part) in [
            ("type=local", "dest is required"),
            ("dest=x", "type is required"),
            ("type=tape", "unknown type of output"),
            ("type=image,dest=x", "dest not supported"),
            ("type=tar,dest=/", "is a directory"),
            ("type=local,dest=-", "dest cannot be stdout for local output"),
            (
                "type=oci,dest=-,tar=false",
                "dest cannot be stdout for oci output",
            ),
            (
                "type=docker,dest=-,tar=0",
                "dest cannot be stdout for docker output",
            ),
            ("type=local,dest=/dev/null", "is a file: /dev/null"),
            ("type=local,dest=/dev/null/x", "Not a directory"),
            ("type=oci,dest=/no/such/x.tar", "there is no directory /no/such"),
            ("type=tar,x", "is no key=value"),
        ] {
            let said = of(&[text]).unwrap_err().message;
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn the_standard_output_is_taken_once() {
        let named = of(&["type=local,dest=./-"]).unwrap();
        assert_eq!(named.lent[&0], Output::Directory("./-".into()));
        if terminal::stdout_is_terminal() {
            println!("skipped: archives are not written to a terminal");
            return;
        }
        assert_eq!(of(&["-"]).unwrap().lent[&0], Output::Stdout);
        let said = of(&["-", "type=oci"]).unwrap_err().message;
        assert!(said.contains("multiple outputs"), "{said}");
    }
}
