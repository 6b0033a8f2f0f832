//! Content that layers share and that holds something else: it is put right in its place, for whoever reads it.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use store::Store;

use crate::Bench;
use crate::sharing::{content, layer_of, objects};

/// What the store calls the only object there is.
fn name(store: &Store) -> String {
    let object = objects(store).remove(0);
    let part = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    part(object.parent().unwrap()) + &part(&object)
}

fn damaged(store: &Store) -> Vec<String> {
    store.snapshots().damaged_objects(&|| false).unwrap()
}

fn damage(store: &Store) {
    let object = File::options().write(true).open(&objects(store)[0]).unwrap();
    object.write_all_at(b"damaged", 5000).unwrap();
}

#[test]
fn the_next_layer_with_the_file_puts_it_right_for_all() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(40, 9000);
    let layers = [
        layer_of(&bench, None, "a", &bytes, 1000, 0),
        layer_of(&bench, None, "b", &bytes, 2000, 33),
    ];
    // Somebody reads it all the time.
    let root = bench.root(bench.container(layers[0]));
    let mut open = File::open(root.path.join("a")).unwrap();
    let (snapshots, name) = (bench.store.snapshots(), name(&bench.store));
    for harm in ["other bytes", "shorter", "longer"] {
        let object = File::options()
            .write(true)
            .open(&objects(&bench.store)[0])
            .unwrap();
        match harm {
            "other bytes" => object.write_all_at(b"damaged", 5000).unwrap(),
            "shorter" => object.set_len(10).unwrap(),
            _ => object.set_len(20_000).unwrap(),
        }
        assert_eq!(damaged(&bench.store), [name.as_str()], "{harm}");
        assert!(snapshots.mark_damaged(&name, &|| false).unwrap());
        // A mark says what was found, and takes nothing from those who have it.
        let held: Vec<String> = snapshots
            .holders(&name)
            .unwrap()
            .iter()
            .map(|layer| layer.id.to_string())
            .collect();
        assert_eq!(held, layers.map(|layer| layer.to_string()), "{harm}");
        let other = layer_of(&bench, None, "c", &content(41, 5000), 1, 0);
        assert_eq!(
            damaged(&bench.store),
            [name.as_str()],
            "another file changes nothing"
        );
        snapshots.remove(other).unwrap();

        let next = layer_of(&bench, None, "c", &bytes, 3000, 7);
        assert!(damaged(&bench.store).is_empty(), "{harm}");
        for (layer, file) in layers.iter().zip(["a", "b"]).chain([(&next, "c")]) {
            assert_eq!(
                fs::read(bench.root(*layer).path.join(file)).unwrap(),
                bytes,
                "{harm}"
            );
        }
        let mut seen = Vec::new();
        std::io::Seek::rewind(&mut open).unwrap();
        open.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, bytes, "{harm}: an open file shows it, too");
        let object = fs::metadata(&objects(&bench.store)[0]).unwrap();
        assert_eq!((object.mode() & 0o7777, object.nlink()), (0o444, 4), "{harm}");
        assert!(
            !snapshots.mark_damaged(&name, &|| false).unwrap(),
            "nothing is wrong"
        );
        snapshots.remove(next).unwrap();
    }
}

#[test]
fn nothing_but_its_own_content_comes_into_its_place() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(42, 9000);
    let layer = layer_of(&bench, None, "a", &bytes, 1000, 0);
    let (snapshots, name) = (bench.store.snapshots(), name(&bench.store));
    damage(&bench.store);
    let harmed = fs::read(&objects(&bench.store)[0]).unwrap();
    assert!(snapshots.mark_damaged(&name, &|| false).unwrap());
    let longer = [&bytes[..], &b"x"[..]].concat();
    for wrong in [Vec::new(), content(43, 9000), bytes[..8999].to_vec(), longer] {
        assert!(!snapshots.offer_content(&name, wrong.as_slice()).unwrap());
        assert_eq!(fs::read(&objects(&bench.store)[0]).unwrap(), harmed);
    }
    for nobody in ["", "../../meta.db", "x", &"x".repeat(22)] {
        assert!(
            !snapshots.offer_content(nobody, &bytes[..]).unwrap_or(false),
            "{nobody}"
        );
        assert!(
            !snapshots.mark_damaged(nobody, &|| false).unwrap_or(false),
            "{nobody}"
        );
    }
    // The mark lasts as long as the damage does.
    let bench = bench.sharing_from_now_on(true);
    assert!(bench.store.snapshots().offer_content(&name, &bytes[..]).unwrap());
    assert!(damaged(&bench.store).is_empty());
    assert_eq!(fs::read(bench.root(layer).path.join("a")).unwrap(), bytes);
    // Nothing is left of the tries.
    let left: Vec<_> = fs::read_dir(bench.store.root().join("objects"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !["boot", "files", "key"].iter().any(|known| name == known))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_reading_of_one_large_file_ends_when_it_is_asked_to() {
    let Some(bench) = Bench::sharing() else { return };
    layer_of(&bench, None, "a", &content(44, 10 << 20), 1000, 0);
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) >= 3;
    assert!(bench.store.snapshots().damaged_objects(&stop).is_err());
    assert!(asked.get() <= 5, "asked {} times", asked.get());
    assert!(damaged(&bench.store).is_empty(), "what was given up says nothing");
}
