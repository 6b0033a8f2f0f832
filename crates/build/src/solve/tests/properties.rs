//! What holds for every graph, every failure and every moment at which it is given up: a vertex runs at most once, equal
//! vertices run once together, results are those of going through the graph in order, and what was made is not made again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// How many operations may run at a time.
const PLACES: usize = 3;

/// One vertex: what it is (equal numbers are equal operations), what it takes, how long it takes.
#[derive(Debug, Clone)]
struct Plan {
    kind: u8,
    inputs: Vec<usize>,
    /// Times that it lets the others go first.
    turns: u8,
    fails: bool,
    by_value: bool,
    /// What it does has to be read first.
    late: bool,
}

fn graphs(may_fail: bool) -> impl Strategy<Value = Vec<Plan>> {
    let vertex = (
        any::<u8>(),
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        0u8..6,
        any::<u8>(),
    );
    prop::collection::vec(vertex, 1..14).prop_map(move |vertices| {
        let plan =
            |(at, (kind, inputs, turns, dice)): (usize, (u8, Vec<prop::sample::Index>, u8, u8))| Plan {
                // Few kinds, so that many vertices are equal.
                kind: kind % 5,
                inputs: match at {
                    0 => Vec::new(),
                    at => inputs.iter().map(|index| index.index(at)).collect(),
                },
                turns,
                fails: may_fail && dice < 40,
                by_value: dice % 3 == 0,
                late: dice % 7 == 0,
            };
        vertices.into_iter().enumerate().map(plan).collect()
    })
}

/// What each vertex gives when the graph is gone through in order; `None` where it or one below it fails.
fn in_order(plans: &[Plan]) -> Vec<Option<u64>> {
    let mut values: Vec<Option<u64>> = Vec::new();
    for plan in plans {
        let inputs: Option<Vec<u64>> = plan.inputs.iter().map(|&input| values[input]).collect();
        values.push(
            inputs
                .filter(|_| !plan.fails)
                .map(|inputs| value(plan.kind, &inputs)),
        );
    }
    values
}

fn value(kind: u8, inputs: &[u64]) -> u64 {
    inputs.iter().fold(u64::from(kind) + 1, |value, input| {
        value.wrapping_mul(0x0100_0000_01b3).wrapping_add(*input)
    })
}

/// By what the solver tells each vertex from others: what it is, and what its inputs are known by. What looks at its inputs'
/// content is itself known by that.
fn keys(plans: &[Plan]) -> Vec<String> {
    let values = in_order(plans);
    let (mut keys, mut identities): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for plan in plans {
        let inputs: Vec<&str> = plan
            .inputs
            .iter()
            .map(|&input| identities[input].as_str())
            .collect();
        let key = format!("{}({})", name(plan), inputs.join(" "));
        let contents: Vec<String> = plan
            .inputs
            .iter()
            .map(|&input| format!("{:?}", values[input]))
            .collect();
        identities.push(match plan.by_value && !plan.inputs.is_empty() {
            true => format!("{}<{}>", name(plan), contents.join(" ")),
            false => key.clone(),
        });
        keys.push(key);
    }
    keys
}

fn name(plan: &Plan) -> String {
    format!("{} {} {}", plan.kind, plan.fails, plan.by_value)
}

/// What is seen while a graph is solved.
#[derive(Default)]
struct Seen {
    /// How often each vertex was made, equal ones together.
    runs: Mutex<BTreeMap<String, usize>>,
    done: Mutex<BTreeSet<String>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    begun: AtomicUsize,
}

/// A bench with the graph of `plans`, which is asked to stop when `stop_after` operations have begun.
fn bench(
    plans: &[Plan],
    cache: &Arc<Memory>,
    seen: &Arc<Seen>,
    stop_after: Option<usize>,
) -> (Bench, Vec<VertexId>) {
    let mut bench = Bench::with_cache(cache.clone());
    let mut ids: Vec<VertexId> = Vec::new();
    for (plan, key) in plans.iter().cloned().zip(keys(plans)) {
        let (seen, stop) = (seen.clone(), bench.stop.clone());
        let inputs: Vec<VertexId> = plan.inputs.iter().map(|&input| ids[input]).collect();
        let name = name(&plan);
        let (by_value, late) = (plan.by_value, plan.late);
        let work: Work = Arc::new(move |inputs, token: CancellationToken| {
            let (seen, stop, plan, key) = (seen.clone(), stop.clone(), plan.clone(), key.clone());
            Box::pin(async move {
                *seen.runs.lock().unwrap().entry(key.clone()).or_default() += 1;
                let now = seen.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most_at_once.fetch_max(now, Ordering::SeqCst);
                if Some(seen.begun.fetch_add(1, Ordering::SeqCst) + 1) == stop_after {
                    stop.cancel();
                }
                for _ in 0..plan.turns {
                    tokio::task::yield_now().await;
                }
                seen.at_once.fetch_sub(1, Ordering::SeqCst);
                match (token.is_cancelled(), plan.fails) {
                    (true, _) => Err("stopped".to_owned()),
                    (_, true) => Err(format!("vertex of kind {} fails", plan.kind)),
                    _ => {
                        seen.done.lock().unwrap().insert(key);
                        Ok(value(plan.kind, &inputs))
                    }
                }
            })
        });
        let id = bench.add_work(&name, &inputs, work);
        let operation = &mut bench.graph.vertices[id.0].operation;
        (operation.by_value, operation.late) = (by_value, late);
        ids.push(id);
    }
    (bench, ids)
}

async fn solved(bench: Bench, targets: &[VertexId]) -> Result<Results<u64>, SolveError<String>> {
    let conditions = Conditions {
        cache: bench.cache,
        use_cache: true,
        observer: bench.log,
        making: bench.making,
        places: PLACES,
        stop: bench.stop,
    };
    let wanted = Wanted {
        targets,
        values: targets,
        fetch_rest: false,
    };
    let solving = super::super::solve(Arc::new(bench.graph), wanted, conditions);
    // Nothing waits for the clock, so this is only met by a solver that never ends.
    tokio::time::timeout(Duration::from_secs(60), solving)
        .await
        .expect("the solver ends")
        .map(|done| done.results)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(work)
}

fn check_once(seen: &Seen) {
    for (what, count) in seen.runs.lock().unwrap().iter() {
        assert_eq!(*count, 1, "{what:?} ran more than once");
    }
    assert!(seen.most_at_once.load(Ordering::SeqCst) <= PLACES);
    assert_eq!(seen.at_once.load(Ordering::SeqCst), 0, "something still runs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_are_those_of_going_in_order(plans in graphs(false)) {
        let (cache, seen) = (Arc::default(), Arc::default());
        let (bench, ids) = bench(&plans, &cache, &seen, None);
        let results = run(solved(bench, &ids)).unwrap();
        let expected = in_order(&plans);
        for (id, expected) in ids.iter().zip(&expected) {
            prop_assert_eq!(Some(results[id].value), *expected);
        }
        check_once(&seen);
        // And once more: nothing runs.
        let again: Arc<Seen> = Arc::default();
        let (second, ids) = super::properties::bench(&plans, &cache, &again, None);
        run(solved(second, &ids)).unwrap();
        prop_assert!(again.runs.lock().unwrap().is_empty());
    }

    #[test]
    fn a_failure_is_that_of_a_vertex_that_fails(plans in graphs(true)) {
        let (cache, seen): (Arc<Memory>, Arc<Seen>) = (Arc::default(), Arc::default());
        let (bench, ids) = bench(&plans, &cache, &seen, None);
        let expected = in_order(&plans);
        match run(solved(bench, &ids)) {
            Ok(results) => {
                prop_assert!(expected.iter().all(Option::is_some));
                prop_assert_eq!(results.len(), ids.iter().collect::<BTreeSet<_>>().len());
            }
            Err(SolveError::Failed(vertex, _)) => prop_assert!(plans[vertex.0].fails, "{vertex:?} does not fail"),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        check_once(&seen);
    }

    #[test]
    fn given_up_at_any_moment_the_next_one_goes_on_from_what_was_made(plans in graphs(false), after in 1usize..14) {
        let (cache, seen): (Arc<Memory>, Arc<Seen>) = (Arc::default(), Arc::default());
        let (first, ids) = bench(&plans, &cache, &seen, Some(after));
        match run(solved(first, &ids)) {
            Ok(_) | Err(SolveError::Stopped) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        check_once(&seen);
        let kept = seen.done.lock().unwrap().clone();
        let rest: Arc<Seen> = Arc::default();
        let (second, ids) = bench(&plans, &cache, &rest, None);
        let results = run(solved(second, &ids)).unwrap();
        for (id, expected) in ids.iter().zip(in_order(&plans)) {
            prop_assert_eq!(Some(results[id].value), expected);
        }
        check_once(&rest);
        for key in rest.runs.lock().unwrap().keys() {
            prop_assert!(!kept.contains(key), "{key} was made and is made again");
        }
    }

    #[test]
    fn two_runs_at_the_same_time_make_each_vertex_once(plans in graphs(false)) {
        let (cache, seen): (Arc<Memory>, Arc<Seen>) = (Arc::default(), Arc::default());
        let (first, ids) = bench(&plans, &cache, &seen, None);
        let (mut second, _) = bench(&plans, &cache, &seen, None);
        second.making = first.making.clone();
        let both = run(async { tokio::join!(solved(first, &ids), solved(second, &ids)) });
        for results in [both.0.unwrap(), both.1.unwrap()] {
            for (id, expected) in ids.iter().zip(in_order(&plans)) {
                prop_assert_eq!(Some(results[id].value), expected);
            }
        }
        for (what, count) in seen.runs.lock().unwrap().iter() {
            prop_assert_eq!(*count, 1, "{:?} ran more than once", what);
        }
    }

    #[test]
    fn one_run_that_is_given_up_takes_nothing_from_another(plans in graphs(false), after in 1usize..14) {
        let (cache, seen): (Arc<Memory>, Arc<Seen>) = (Arc::default(), Arc::default());
        let (first, ids) = bench(&plans, &cache, &seen, Some(after));
        let (mut second, _) = bench(&plans, &cache, &seen, None);
        second.making = first.making.clone();
        let (given_up, results) = run(async { tokio::join!(solved(first, &ids), solved(second, &ids)) });
        prop_assert!(matches!(given_up, Ok(_) | Err(SolveError::Stopped)), "{given_up:?}");
        let results = results.unwrap();
        for (id, expected) in ids.iter().zip(in_order(&plans)) {
            prop_assert_eq!(Some(results[id].value), expected);
        }
    }
}
