//! Results that another cache knows: brought only where they are needed, and made where they cannot be brought.

use super::*;

/// A chain of three, of which another cache knows the first `known`; those in `has` can be brought.
fn far_chain(known: usize, has: &[usize]) -> (Bench, Vec<VertexId>) {
    let mut keys: Vec<Digest> = Vec::new();
    let mut afar = Afar::default();
    for at in 0..known {
        let inputs: Vec<Digest> = keys.last().cloned().into_iter().collect();
        let own = key(&Digest::sha256(format!("step {at}").as_bytes()), &inputs);
        let value = has.contains(&at).then_some(100 + at as u64);
        afar.known.insert(own.clone(), (own.clone(), value));
        keys.push(own);
    }
    let mut bench = Bench::with_cache(Arc::new(Memory(Mutex::default(), afar)));
    let mut ids: Vec<VertexId> = Vec::new();
    for at in 0..3 {
        let below: Vec<VertexId> = ids.last().copied().into_iter().collect();
        ids.push(bench.sum(&format!("step {at}"), 1, &below));
    }
    (bench, ids)
}

/// How many results were brought, and how many made.
fn effort(cache: &Memory, runs: &AtomicUsize) -> (usize, usize) {
    (
        cache.1.brought.load(Ordering::SeqCst),
        runs.load(Ordering::SeqCst),
    )
}

#[tokio::test]
async fn what_is_known_elsewhere_is_brought_only_when_it_is_needed() {
    // Only the value of the last one is wanted: those below it are known by their names.
    let (bench, ids) = far_chain(3, &[0, 1, 2]);
    let (cache, log, runs) = (bench.cache.clone(), bench.log.clone(), bench.runs());
    let results = bench.solve(&ids[2..], true).await.unwrap();
    assert_eq!(results[&ids[2]].value, 102);
    assert_eq!(effort(&cache, &runs), (1, 0));
    for id in &ids {
        assert_eq!(log.of(*id), "cached");
    }
    // What was brought is here now.
    assert!(cache.0.lock().unwrap().values().any(|solved| solved.value == 102));
}

#[tokio::test]
async fn a_step_is_made_on_what_is_brought() {
    let (bench, ids) = far_chain(2, &[0, 1]);
    let (cache, log, runs) = (bench.cache.clone(), bench.log.clone(), bench.runs());
    let results = bench.solve(&ids[2..], true).await.unwrap();
    assert_eq!(results[&ids[2]].value, 102);
    assert_eq!(effort(&cache, &runs), (1, 1));
    assert_eq!(
        (log.of(ids[0]), log.of(ids[1]), log.of(ids[2])),
        ("cached".into(), "cached".into(), "made".into())
    );
}

#[tokio::test]
async fn what_cannot_be_brought_is_made() {
    // The second is known and nowhere; it is made on the first, which is brought.
    let (bench, ids) = far_chain(2, &[0]);
    let (log, runs) = (bench.log.clone(), bench.runs());
    let results = bench.solve(&ids[2..], true).await.unwrap();
    assert_eq!(results[&ids[2]].value, 102);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(
        (log.of(ids[0]), log.of(ids[1]), log.of(ids[2])),
        ("cached".into(), "made".into(), "made".into())
    );
    let told = log.0.lock().unwrap().len();
    assert_eq!(told, 3, "each is told once");
}

#[tokio::test]
async fn a_failure_in_what_could_not_be_brought_is_told() {
    let (mut bench, ids) = far_chain(1, &[]);
    bench.graph.vertices[ids[0].0].operation.work =
        Arc::new(|_, _| Box::pin(async { Err("it broke".to_owned()) }));
    let error = bench.solve(&ids[2..], true).await.unwrap_err();
    assert_eq!(error, SolveError::Failed(ids[0], "it broke".to_owned()));
}

#[tokio::test]
async fn the_rest_is_brought_where_it_is_wanted() {
    let (bench, ids) = far_chain(3, &[0, 2]);
    let (cache, runs) = (bench.cache.clone(), bench.runs());
    let wanted = Wanted {
        targets: &ids,
        values: &ids[2..],
        fetch_rest: true,
    };
    let conditions = Conditions {
        cache: bench.cache,
        use_cache: true,
        observer: bench.log,
        making: bench.making,
        places: 4,
        stop: bench.stop,
    };
    let done = solve(Arc::new(bench.graph), wanted, conditions).await.unwrap();
    let values: Vec<Option<u64>> = ids.iter().map(|id| done.traces[id].value).collect();
    assert_eq!(values, [Some(100), None, Some(102)]);
    assert_eq!(effort(&cache, &runs), (2, 0));
}

#[tokio::test]
async fn what_is_shared_is_told_when_nobody_can_need_it_any_more() {
    // Both are known elsewhere, and so is what they share. The first can be brought; the other is made, and that, too.
    let mut bench = Bench::default();
    let shared = bench.sum("shared", 1, &[]);
    let brought = bench.sum("brought", 1, &[shared]);
    let made = bench.sum("made", 1, &[shared]);
    let mut afar = Afar::default();
    let below = key(&Digest::sha256(b"shared"), &[]);
    afar.known.insert(below.clone(), (below.clone(), None));
    for (name, value) in [("brought", Some(7)), ("made", None)] {
        let own = key(&Digest::sha256(name.as_bytes()), std::slice::from_ref(&below));
        afar.known.insert(own.clone(), (own, value));
    }
    bench.cache = Arc::new(Memory(Mutex::default(), afar));
    let (log, runs) = (bench.log.clone(), bench.runs());
    let results = bench.solve(&[brought, made], true).await.unwrap();
    assert_eq!((results[&brought].value, results[&made].value), (7, 2));
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(
        (log.of(shared), log.of(brought), log.of(made)),
        ("made".into(), "cached".into(), "made".into())
    );
    let told = log.0.lock().unwrap().len();
    assert_eq!(told, 3, "each is told once");
}

#[tokio::test]
async fn what_was_known_is_told_when_something_else_fails() {
    let (mut bench, ids) = far_chain(2, &[1]);
    bench.graph.vertices[ids[2].0].operation.work =
        Arc::new(|_, _| Box::pin(async { Err("it broke".to_owned()) }));
    let log = bench.log.clone();
    let error = bench.solve(&ids[2..], true).await.unwrap_err();
    assert_eq!(error, SolveError::Failed(ids[2], "it broke".to_owned()));
    assert_eq!(
        (log.of(ids[0]), log.of(ids[1]), log.of(ids[2])),
        ("cached".into(), "cached".into(), "failed".into())
    );
}

/// However many steps lie on each other that are known and nowhere, none is made inside another one.
#[tokio::test]
async fn long_chains_that_cannot_be_brought_are_made() {
    const LENGTH: usize = 20_000;
    let mut bench = Bench::default();
    let (mut afar, mut below, mut ids) = (Afar::default(), Vec::new(), Vec::new());
    for at in 0..LENGTH {
        let name = format!("step {at}");
        let own = key(&Digest::sha256(name.as_bytes()), &below);
        afar.known.insert(own.clone(), (own.clone(), None));
        below = vec![own];
        let inputs: Vec<VertexId> = ids.last().copied().into_iter().collect();
        ids.push(bench.sum(&name, 1, &inputs));
    }
    bench.cache = Arc::new(Memory(Mutex::default(), afar));
    let (log, runs) = (bench.log.clone(), bench.runs());
    let results = bench.solve(&ids[LENGTH - 1..], true).await.unwrap();
    assert_eq!(results[&ids[LENGTH - 1]].value, LENGTH as u64);
    assert_eq!(runs.load(Ordering::SeqCst), LENGTH);
    assert_eq!(log.0.lock().unwrap().len(), LENGTH, "each is told once");
}
