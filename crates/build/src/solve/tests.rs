use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Barrier, Notify};

use super::*;

mod afar;
mod beside;
mod glance;
mod properties;

type Work = Arc<dyn Fn(Vec<u64>, CancellationToken) -> BoxFuture<'static, Result<u64, String>> + Send + Sync>;

/// A plain function as an operation.
struct Function {
    name: String,
    work: Work,
    by_value: bool,
    /// What it does has to be read first.
    late: bool,
    /// Its result, where there is nothing to do.
    given: Option<u64>,
    waiting: Arc<Notify>,
    stalled: Arc<Notify>,
}

impl Operation for Function {
    type Value = u64;
    type Error = String;

    fn definition(&self) -> BoxFuture<'_, Result<Digest, String>> {
        Box::pin(async {
            match self.name.strip_prefix("bad ") {
                Some(name) => Err(format!("no definition of {name}")),
                None => Ok(Digest::sha256(self.name.as_bytes())),
            }
        })
    }

    fn definition_at_once(&self) -> Option<Digest> {
        let known = !self.late && !self.name.starts_with("bad ");
        known.then(|| Digest::sha256(self.name.as_bytes()))
    }

    fn at_once(&self, inputs: &[u64]) -> Option<u64> {
        Some(self.given? + inputs.iter().sum::<u64>())
    }

    fn contents<'a>(
        &'a self,
        inputs: &'a [u64],
    ) -> BoxFuture<'a, Result<Option<Vec<Option<Digest>>>, String>> {
        Box::pin(async move {
            let digest = |value: &u64| Some(Digest::sha256(&value.to_be_bytes()));
            Ok(self.by_value.then(|| inputs.iter().map(digest).collect()))
        })
    }

    fn run<'a>(
        &'a self,
        inputs: &'a [u64],
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<u64, String>> {
        (self.work)(inputs.to_vec(), stop.clone())
    }

    fn waits(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.waiting.notify_one() })
    }

    fn stalls(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stalled.notified())
    }
}

#[derive(Default)]
struct Memory(Mutex<HashMap<Digest, Solved<u64>>>, Afar);

/// What another cache knows: by key, the identity, and the value where that can be brought.
#[derive(Default)]
struct Afar {
    known: HashMap<Digest, (Digest, Option<u64>)>,
    brought: AtomicUsize,
}

impl Cache<Function> for Memory {
    fn find(&self, key: &Digest) -> Result<Option<Found<u64>>, String> {
        let here = self.0.lock().unwrap().get(key).cloned().map(Found::Here);
        let there = || {
            self.1
                .known
                .get(key)
                .map(|(identity, _)| Found::There(identity.clone()))
        };
        Ok(here.or_else(there))
    }

    fn bring<'a>(&'a self, key: &'a Digest) -> BoxFuture<'a, Result<Option<Brought<u64>>, String>> {
        Box::pin(async {
            let value = self.1.known.get(key).and_then(|(_, value)| *value);
            self.1
                .brought
                .fetch_add(usize::from(value.is_some()), Ordering::SeqCst);
            Ok(value.map(|value| (value, None)))
        })
    }

    fn also(&self, key: &Digest, solved: &Solved<u64>) -> Result<(), String> {
        self.0.lock().unwrap().insert(key.clone(), solved.clone());
        Ok(())
    }

    fn keep(&self, made: Made<'_, Function>) -> Result<(), String> {
        let mut rows = self.0.lock().unwrap();
        for key in made.keys {
            rows.insert(key.clone(), made.solved.clone());
        }
        Ok(())
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<(VertexId, String)>>);

impl Observer<Function> for Log {
    fn settled<'a>(&'a self, vertex: VertexId, outcome: &'a Outcome<u64, String>) -> BoxFuture<'a, ()> {
        let word = match outcome {
            Outcome::Cached(_) => "cached",
            Outcome::Merged(_) => "merged",
            Outcome::Made(_) => "made",
            Outcome::Failed(_) => "failed",
            Outcome::Stopped => "stopped",
        };
        self.0.lock().unwrap().push((vertex, word.to_owned()));
        Box::pin(async {})
    }
}

impl Log {
    fn of(&self, vertex: VertexId) -> String {
        let log = self.0.lock().unwrap();
        log.iter()
            .find(|(id, _)| *id == vertex)
            .map(|(_, word)| word.clone())
            .unwrap_or_default()
    }
}

#[derive(Default)]
struct Bench {
    graph: Graph<Function>,
    cache: Arc<Memory>,
    log: Arc<Log>,
    runs: Arc<AtomicUsize>,
    stop: CancellationToken,
    making: Arc<Making>,
    /// Is told when a vertex waits for another run.
    waiting: Arc<Notify>,
    /// Tells that what is being made is held up.
    stalled: Arc<Notify>,
}

impl Bench {
    /// Another one that is solved at the same time, with the same cache.
    fn beside(&self) -> Bench {
        Bench {
            making: self.making.clone(),
            ..Bench::with_cache(self.cache.clone())
        }
    }

    fn with_cache(cache: Arc<Memory>) -> Bench {
        Bench {
            cache,
            ..Bench::default()
        }
    }

    fn add_work(&mut self, name: &str, inputs: &[VertexId], work: Work) -> VertexId {
        let runs = self.runs.clone();
        let counted: Work = Arc::new(move |inputs, stop| {
            runs.fetch_add(1, Ordering::SeqCst);
            work(inputs, stop)
        });
        let function = Function {
            name: name.to_owned(),
            work: counted,
            by_value: false,
            late: false,
            given: None,
            waiting: self.waiting.clone(),
            stalled: self.stalled.clone(),
        };
        self.graph.add(function, inputs).unwrap()
    }

    /// Adds up the inputs and `own`.
    fn sum(&mut self, name: &str, own: u64, inputs: &[VertexId]) -> VertexId {
        let work = move |inputs: Vec<u64>, _| -> BoxFuture<'static, _> {
            Box::pin(async move { Ok(own + inputs.iter().sum::<u64>()) })
        };
        self.add_work(name, inputs, Arc::new(work))
    }

    fn sum_by_value(&mut self, name: &str, inputs: &[VertexId]) -> VertexId {
        let id = self.sum(name, 0, inputs);
        self.graph.vertices[id.0].operation.by_value = true;
        id
    }

    async fn solve(self, targets: &[VertexId], use_cache: bool) -> Result<Results<u64>, SolveError<String>> {
        let conditions = Conditions {
            cache: self.cache,
            use_cache,
            observer: self.log,
            making: self.making,
            places: 4,
            stop: self.stop,
        };
        let wanted = Wanted {
            targets,
            values: targets,
            fetch_rest: false,
        };
        Ok(solve(Arc::new(self.graph), wanted, conditions).await?.results)
    }

    fn runs(&self) -> Arc<AtomicUsize> {
        self.runs.clone()
    }
}

#[tokio::test]
async fn solves_only_what_is_needed() {
    let mut bench = Bench::default();
    let a = bench.sum("a", 1, &[]);
    let b = bench.sum("b", 2, &[a]);
    bench.sum("unused", 4, &[a]);
    let runs = bench.runs();
    let results = bench.solve(&[b], true).await.unwrap();
    assert_eq!(results[&b].value, 3);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_second_run_takes_everything_from_the_cache() {
    let cache = Arc::new(Memory::default());
    for (use_cache, expected) in [(true, 2), (true, 0), (false, 2)] {
        let mut bench = Bench::with_cache(cache.clone());
        let a = bench.sum("a", 1, &[]);
        let b = bench.sum("b", 2, &[a]);
        let (runs, log) = (bench.runs(), bench.log.clone());
        assert_eq!(bench.solve(&[b], use_cache).await.unwrap()[&b].value, 3);
        assert_eq!(runs.load(Ordering::SeqCst), expected);
        assert_eq!(log.of(b), if expected == 0 { "cached" } else { "made" });
    }
}

#[tokio::test]
async fn a_change_below_runs_everything_above() {
    let cache = Arc::new(Memory::default());
    for (name, expected) in [("a", 3), ("a2", 2)] {
        let mut bench = Bench::with_cache(cache.clone());
        let a = bench.sum(name, 1, &[]);
        let b = bench.sum("b", 2, &[a]);
        let other = bench.sum("other", 2, &[]);
        let runs = bench.runs();
        bench.solve(&[b, other], true).await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn equal_content_is_known_and_so_is_everything_above() {
    let cache = Arc::new(Memory::default());
    for (name, runs_expected) in [("way one", 3), ("way two", 1), ("way two", 0)] {
        let mut bench = Bench::with_cache(cache.clone());
        let a = bench.sum(name, 7, &[]);
        let copy = bench.sum_by_value("copy", &[a]);
        let top = bench.sum("top", 1, &[copy]);
        let runs = bench.runs();
        assert_eq!(bench.solve(&[top], true).await.unwrap()[&top].value, 8);
        assert_eq!(runs.load(Ordering::SeqCst), runs_expected, "{name}");
    }
}

#[tokio::test]
async fn independent_vertices_run_at_the_same_time() {
    let mut bench = Bench::default();
    let barrier = Arc::new(Barrier::new(3));
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let barrier = barrier.clone();
        // Each waits until all three are running: one after the other this would never end.
        let work: Work = Arc::new(move |_, _| {
            let barrier = barrier.clone();
            Box::pin(async move {
                barrier.wait().await;
                Ok(1)
            })
        });
        ids.push(bench.add_work(name, &[], work));
    }
    let all = bench.sum("all", 0, &ids);
    assert_eq!(bench.solve(&[all], true).await.unwrap()[&all].value, 3);
}

#[tokio::test]
async fn equal_vertices_run_once() {
    let mut bench = Bench::default();
    let (a1, a2) = (bench.sum("a", 1, &[]), bench.sum("a", 1, &[]));
    let (b1, b2) = (bench.sum("b", 1, &[a1]), bench.sum("b", 1, &[a2]));
    let top = bench.sum("top", 0, &[b1, b2]);
    let (runs, log) = (bench.runs(), bench.log.clone());
    assert_eq!(bench.solve(&[top], true).await.unwrap()[&top].value, 4);
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let mut words = [log.of(b1), log.of(b2)];
    words.sort();
    assert_eq!(words, ["made", "merged"]);
}

fn until_stopped() -> Work {
    Arc::new(|_, stop: CancellationToken| {
        Box::pin(async move {
            stop.cancelled().await;
            Err("stopped as asked".to_owned())
        })
    })
}

#[tokio::test]
async fn the_first_failure_stops_the_others() {
    let mut bench = Bench::default();
    let long = bench.add_work("long", &[], until_stopped());
    let bad = bench.add_work(
        "bad",
        &[],
        Arc::new(|_, _| Box::pin(async { Err("broken".to_owned()) })),
    );
    let after = bench.sum("after", 0, &[bad]);
    let log = bench.log.clone();
    let error = bench.solve(&[long, after], true).await.unwrap_err();
    assert_eq!(error, SolveError::Failed(bad, "broken".to_owned()));
    assert_eq!(
        [log.of(bad), log.of(long), log.of(after)],
        ["failed".to_owned(), "stopped".to_owned(), "stopped".to_owned()]
    );
}

#[tokio::test]
async fn a_definition_that_fails_is_a_failure() {
    let mut bench = Bench::default();
    let bad = bench.sum("bad a", 0, &[]);
    let error = bench.solve(&[bad], true).await.unwrap_err();
    assert_eq!(error, SolveError::Failed(bad, "no definition of a".to_owned()));
}

#[tokio::test]
async fn cancelling_ends_what_runs_and_remembers_nothing() {
    let mut bench = Bench::default();
    let long = bench.add_work("long", &[], until_stopped());
    let after = bench.sum("after", 0, &[long]);
    let (stop, cache) = (bench.stop.clone(), bench.cache.clone());
    let targets = [after];
    let (result, ()) = tokio::join!(bench.solve(&targets, true), async {
        tokio::task::yield_now().await;
        stop.cancel();
    });
    assert!(matches!(result, Err(SolveError::Stopped)));
    assert!(cache.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn dropping_the_solver_asks_to_stop() {
    let mut bench = Bench::default();
    let (said, heard) = tokio::sync::oneshot::channel::<()>();
    let said = Arc::new(Mutex::new(Some(said)));
    let work: Work = Arc::new(move |_, stop: CancellationToken| {
        let said = said.clone();
        Box::pin(async move {
            stop.cancelled().await;
            said.lock().unwrap().take().map(|said| said.send(()));
            Err("stopped".to_owned())
        })
    });
    let long = bench.add_work("long", &[], work);
    {
        let targets = [long];
        let solving = bench.solve(&targets, true);
        tokio::pin!(solving);
        tokio::select! {
            biased;
            _ = &mut solving => panic!("it cannot end"),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
    }
    heard.await.unwrap();
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_vertex() {
    let mut bench = Bench::default();
    let bad = bench.add_work(
        "bad",
        &[],
        Arc::new(|_, _| Box::pin(async { panic!("on purpose") })),
    );
    let after = bench.sum("after", 0, &[bad]);
    assert_eq!(
        bench.solve(&[after], true).await.unwrap_err(),
        SolveError::Broken(bad)
    );
}

#[test]
fn inputs_must_be_added_first() {
    let mut bench = Bench::default();
    let far = VertexId(5);
    let function = Function {
        name: "x".into(),
        work: until_stopped(),
        by_value: false,
        late: false,
        given: None,
        waiting: Arc::default(),
        stalled: Arc::default(),
    };
    assert_eq!(bench.graph.add(function, &[far]), Err(UnknownInput(far)));
}
