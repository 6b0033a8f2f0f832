use super::*;

struct Nowhere;

impl Origin for Nowhere {
    fn top(&self) -> futures_util::future::BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        Box::pin(async { Err(BuildError::invalid("nothing is here")) })
    }

    fn document<'a>(
        &'a self,
        _: &'a Descriptor,
    ) -> futures_util::future::BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        self.top()
    }

    fn layer<'a>(
        &'a self,
        _: &'a Descriptor,
        _: &'a Lease,
    ) -> futures_util::future::BoxFuture<'a, Result<(), BuildError>> {
        Box::pin(async { Ok(()) })
    }
}

fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn blob(name: &str) -> Descriptor {
    let mut blob = Descriptor::new(media_type::OCI_LAYER_GZIP, digest(name), 10);
    let diff = digest(&format!("{name} unpacked")).to_string();
    blob.annotations.insert(DIFF_ID.to_owned(), diff);
    blob
}

fn read(text: &str, blobs: &[Descriptor]) -> Result<Imported, String> {
    let mut imported = Imported::empty("test", Arc::new(Nowhere));
    let config = serde_json::from_str(text).map_err(|error| error.to_string())?;
    imported.add(config, blobs)?;
    Ok(imported)
}

#[test]
fn records_are_found_by_keys_that_are_computed() {
    let text = format!(
        r#"{{"layers":[{{"blob":"{a}","parent":-1}},{{"blob":"{b}"}}],"records":[
            {{"digest":"{copy}","inputs":[[{{"link":1}}],[{{"link":1}},{{"selector":"content","link":2}}]],
              "layers":[{{"layer":1,"createdAt":"2026-01-02T03:04:05Z"}}]}},
            {{"digest":"{base}"}},
            {{"digest":"{content}"}},
            {{"digest":"{run}","inputs":[[{{"link":0}}]],"layers":null}}]}}"#,
        a = digest("a"),
        b = digest("b"),
        copy = digest("copy"),
        base = digest("base"),
        content = digest("content"),
        run = digest("run"),
    );
    let imported = read(&text, &[blob("a"), blob("b")]).unwrap();
    let base = key(&digest("base"), &[]);
    let own = key(&digest("copy"), &[base.clone(), base.clone()]);
    let by_content = key(&digest("copy"), &[base.clone(), digest("content")]);
    assert_eq!(imported.identity(&own), Some(by_content.clone()));
    assert_eq!(imported.identity(&by_content), Some(by_content.clone()));
    assert_eq!(imported.parts(&own), Some(vec![None, Some(digest("content"))]));
    let run = key(&digest("run"), &[by_content]);
    assert_eq!(imported.identity(&run), Some(run.clone()));
    // What is made on nothing is an image, which is always looked for where it is.
    assert_eq!(imported.identity(&base), None);
    let at = imported.entries[&own].result.as_ref().unwrap();
    let stack: Vec<Digest> = imported
        .stack(at.top)
        .into_iter()
        .map(|part| part.blob.digest)
        .collect();
    assert_eq!(stack, [digest("a"), digest("b")]);
    assert_eq!((at.created.as_str(), at.adds), ("2026-01-02T03:04:05Z", true));
    assert!(imported.entries[&run].result.is_none());
    // A layer that nobody can give makes the result one that is only known.
    let imported = read(&text, &[blob("b")]).unwrap();
    assert!(imported.entries[&own].result.is_none());
}

/// As BuildKit writes it: digests of kinds of its own, several ways to one input, chains of layers, times.
#[test]
fn what_other_builders_wrote_is_read_without_a_hit() {
    let text = format!(
        r#"{{"layers":[{{"blob":"{a}","parent":-1,"annotations":{{"mediaType":"x","size":3}}}}],"records":[
            {{"digest":"random:abc"}},
            {{"digest":"{x}","layers":[{{"createdAt":"2024-01-01T00:00:00.5+02:00"}}],
              "inputs":[[{{"selector":"sha256:00","link":0}},{{"link":0}}]]}},
            {{"digest":"{y}","inputs":[[{{"selector":"/","link":1}}]],
              "chains":[{{"layers":[0],"createdAt":"2024-01-01T00:00:00Z"}}]}}]}}"#,
        a = digest("a"),
        x = digest("x"),
        y = digest("y"),
    );
    assert!(read(&text, &[blob("a")]).unwrap().is_empty());
}

#[test]
fn damaged_documents_are_refused() {
    let (a, x) = (digest("a"), digest("x"));
    let record = |inputs: &str| format!(r#"{{"digest":"{x}","inputs":{inputs}}}"#);
    let layers = |layers: &str| format!(r#"{{"layers":[{layers}]}}"#);
    for (text, part) in [
        (
            format!(r#"{{"records":[{}]}}"#, record(r#"[[{"link":7}]]"#)),
            "the record 7, of which there are 1",
        ),
        (
            format!(r#"{{"records":[{}]}}"#, record(r#"[[{"link":-1}]]"#)),
            "the record -1",
        ),
        (
            format!(r#"{{"records":[{}]}}"#, record(r#"[[{"link":0}]]"#)),
            "in a circle",
        ),
        (
            format!(
                r#"{{"records":[{},{}]}}"#,
                record(r#"[[{"link":1}]]"#),
                record(r#"[[{"link":0}]]"#)
            ),
            "in a circle",
        ),
        (layers(&format!(r#"{{"blob":"{a}","parent":3}}"#)), "the layer 3"),
        (layers(&format!(r#"{{"blob":"{a}","parent":0}}"#)), "in a circle"),
        (
            layers(&format!(
                r#"{{"blob":"{a}","parent":1}},{{"blob":"{a}","parent":0}}"#
            )),
            "in a circle",
        ),
        (layers(r#"{"blob":"sha256:short"}"#), "digest"),
        ("3".to_owned(), "invalid type"),
    ] {
        let said = read(&text, &[blob("a")]).unwrap_err();
        assert!(said.contains(part), "{text}: {said}");
    }
}

#[test]
fn fuzz_cache() {
    let (a, b, x) = (digest("a"), digest("b"), digest("x"));
    let text = format!(
        "{{\"layers\":[{{\"blob\":\"{a}\",\"parent\":-1}},\n{{\"blob\":\"{b}\"}}],\n\"records\":[\n\
         {{\"digest\":\"{x}\",\"inputs\":[[{{\"link\":1}}],[{{\"link\":1}},\n{{\"selector\":\"content\",\"link\":2}}]],\n\
         \"layers\":[{{\"layer\":1}}]}},\n{{\"digest\":\"{a}\"}},\n{{\"digest\":\"{b}\"}},\n\
         {{\"digest\":\"{x}\",\"inputs\":[[{{\"link\":0}}]],\"layers\":null}}]}}"
    );
    let blobs = [blob("a"), blob("b")];
    let words = [
        "0",
        "\"link\":",
        "\"layer\":",
        "\"layers\":",
        "\"inputs\":",
        "\"digest\":",
        "\"blob\":",
        "\"parent\":",
        a.as_str(),
        x.as_str(),
    ];
    let target = fuzz::target!("tests/corpus/cache").seeds([text.into_bytes()]);
    target.words(&fuzz::JSON).words(&words).run(|text| {
        let read = read(&String::from_utf8_lossy(text), &blobs);
        if let Ok(imported) = &read {
            for entry in imported.entries.values() {
                if let Some(at) = &entry.result {
                    assert!(!imported.stack(at.top).is_empty());
                }
            }
        }
        fuzz::outcome(&read)
    });
}

/// Nothing in it depends on how deep records lie on each other.
#[test]
fn long_chains_are_read() {
    let x = digest("x");
    let records: Vec<String> = (0..5_000)
        .map(|at| format!(r#"{{"digest":"{x}","inputs":[[{{"link":{}}}]]}}"#, at + 1))
        .chain([format!(r#"{{"digest":"{x}"}}"#)])
        .collect();
    let imported = read(&format!(r#"{{"records":[{}]}}"#, records.join(",")), &[]).unwrap();
    assert_eq!(imported.entries.len(), 5_000);
}

/// What lies on many records is known by their names and holds nothing else of them.
#[test]
fn records_on_many_others_are_read() {
    let x = digest("x");
    let wide = vec![r#"[{"link":1}]"#; 20_000].join(",");
    let on_it = vec![r#"[{"link":0}]"#; 20_000].join(",");
    let text = format!(
        r#"{{"records":[{{"digest":"{x}","inputs":[{wide}]}},{{"digest":"{x}"}},{{"digest":"{x}","inputs":[{on_it}]}}]}}"#
    );
    let imported = read(&text, &[]).unwrap();
    let below = key(&x, &vec![key(&x, &[]); 20_000]);
    let above = key(&x, &vec![below; 20_000]);
    assert_eq!(imported.parts(&above).unwrap().len(), 20_000);
}

#[test]
fn what_images_carry_counts_together() {
    let x = digest("x");
    let mut imported = Imported::empty("test", Arc::new(Nowhere));
    let links = Record {
        results: Vec::new(),
        digest: x.to_string(),
        inputs: vec![Vec::new(); MAX_LINKS / 2],
    };
    let records = vec![
        Record {
            results: Vec::new(),
            digest: x.to_string(),
            inputs: Vec::new(),
        };
        MAX_RECORDS / 2 - 1
    ];
    let layers = vec![Layer { blob: x, parent: -1 }; MAX_LAYERS / 2];
    let carried = Config {
        layers,
        records: [vec![links], records].concat(),
    };
    imported.add(carried.clone(), &[]).unwrap();
    imported.add(carried, &[]).unwrap();
    let more = |layers: &str, records: &str| {
        serde_json::from_str(&format!(r#"{{"layers":[{layers}],"records":[{records}]}}"#)).unwrap()
    };
    let record = format!(r#"{{"digest":"{}"}}"#, digest("y"));
    let layer = format!(r#"{{"blob":"{}","parent":-1}}"#, digest("y"));
    imported.add(more("", ""), &[]).unwrap();
    assert!(
        imported
            .add(more(&layer, ""), &[])
            .unwrap_err()
            .contains("at most")
    );
    assert!(
        imported
            .add(more("", &record), &[])
            .unwrap_err()
            .contains("at most")
    );
}

/// Serves a document with layers of an image that say they are large.
struct Large;

impl Origin for Large {
    fn top(&self) -> futures_util::future::BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        let of = |kind: &str| {
            let digest = digest(kind);
            format!(
                r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}}}"#,
                MAX_DOCUMENT + 1
            )
        };
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            of(CONFIG),
            of(media_type::OCI_LAYER_GZIP)
        );
        Box::pin(async { Ok(text.into_bytes()) })
    }

    fn document<'a>(
        &'a self,
        _: &'a Descriptor,
    ) -> futures_util::future::BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        panic!("it is asked for")
    }

    fn layer<'a>(
        &'a self,
        _: &'a Descriptor,
        _: &'a Lease,
    ) -> futures_util::future::BoxFuture<'a, Result<(), BuildError>> {
        panic!("it is asked for")
    }
}

#[tokio::test]
async fn large_documents_are_not_asked_for() {
    let error = import(Arc::new(Large), "test").await.unwrap_err();
    assert!(error.to_string().contains("at most 1048576 are read"), "{error}");
}

#[test]
fn times_are_times() {
    assert_eq!(
        time(Some("2024-01-01T00:00:00.5+02:00")),
        "2023-12-31T22:00:00.5Z"
    );
    for told in [None, Some(""), Some("yesterday\nRUN x")] {
        assert!(time(told).parse::<jiff::Timestamp>().is_ok(), "{told:?}");
    }
}
