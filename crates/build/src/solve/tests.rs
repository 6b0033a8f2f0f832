use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Barrier, Notify};

use super::*;

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

/// A cache that answers questions in turn from what it holds, and says whether the answers may be used.
struct Together {
    memory: Arc<Memory>,
    holds: bool,
    /// Keys that were asked for in turn, and alone.
    asked: Mutex<[Vec<Digest>; 2]>,
}

impl Cache<Function> for Together {
    fn find(&self, key: &Digest) -> Result<Option<Found<u64>>, String> {
        self.asked.lock().unwrap()[1].push(key.clone());
        self.memory.find(key)
    }

    fn find_in_turn(
        &self,
        next: &mut dyn FnMut(Option<Found<u64>>) -> Option<Digest>,
    ) -> Result<bool, String> {
        let mut answer = None;
        while let Some(key) = next(answer.take()) {
            answer = self.memory.find(&key)?;
            self.asked.lock().unwrap()[0].push(key);
        }
        Ok(self.holds)
    }

    fn also(&self, key: &Digest, solved: &Solved<u64>) -> Result<(), String> {
        self.memory.also(key, solved)
    }

    fn keep(&self, made: Made<'_, Function>) -> Result<(), String> {
        self.memory.keep(made)
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

/// How a chain on something given, which memory knows, is solved with a cache whose answers hold or do not: how each vertex
/// ended, and how often the cache was asked in turn and alone.
async fn known_chain(holds: bool, late: bool) -> (Vec<String>, [usize; 2]) {
    let memory = Arc::new(Memory::default());
    let mut told = Vec::new();
    let mut asked = [0, 0];
    for round in 0..2 {
        let mut bench = Bench::with_cache(memory.clone());
        let base = bench.sum("base", 5, &[]);
        bench.graph.vertices[base.0].operation.given = Some(5);
        let a = bench.sum("a", 1, &[base]);
        let same = bench.sum("a", 1, &[base]);
        let b = bench.sum("b", 2, &[a]);
        bench.graph.vertices[b.0].operation.late = late;
        let top = bench.sum("top", 0, &[b, same]);
        let cache = Arc::new(Together {
            memory: memory.clone(),
            holds,
            asked: Mutex::default(),
        });
        let (runs, log) = (bench.runs(), bench.log.clone());
        let conditions = Conditions {
            cache: cache.clone(),
            use_cache: true,
            observer: bench.log,
            making: bench.making,
            places: 4,
            stop: bench.stop,
        };
        let wanted = Wanted {
            targets: &[top],
            values: &[top, base],
            fetch_rest: false,
        };
        let done = solve(Arc::new(bench.graph), wanted, conditions).await.unwrap();
        assert_eq!((done.results[&top].value, done.results[&base].value), (14, 5));
        assert_eq!(done.traces.len(), 5);
        assert_eq!(runs.load(Ordering::SeqCst), if round == 0 { 3 } else { 0 });
        assert_eq!(log.0.lock().unwrap().len(), 5, "each is told once");
        told = [base, a, same, b, top].iter().map(|id| log.of(*id)).collect();
        asked = cache.asked.lock().unwrap().clone().map(|keys| keys.len());
    }
    assert_eq!(memory.0.lock().unwrap().len(), 3, "what was given is not kept");
    (told, asked)
}

#[tokio::test]
async fn what_is_known_is_asked_for_in_one_go() {
    let words = |words: [&str; 5]| words.map(str::to_owned).to_vec();
    let (told, asked) = known_chain(true, false).await;
    assert_eq!(told, words(["made", "cached", "merged", "cached", "cached"]));
    assert_eq!(asked, [3, 0]);
    // What has to be read first, and what lies on it, is asked for alone.
    let (told, asked) = known_chain(true, true).await;
    assert_eq!(told, words(["made", "cached", "merged", "cached", "cached"]));
    assert_eq!(asked, [1, 2]);
}

#[tokio::test]
async fn answers_that_do_not_hold_are_asked_for_again() {
    let (mut told, asked) = known_chain(false, false).await;
    // Whichever of the equal ones comes first.
    told[1..3].sort();
    assert_eq!(told, ["made", "cached", "merged", "cached", "cached"]);
    assert_eq!(asked[0], 3);
    assert!(asked[1] >= 3, "{asked:?}");
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

/// Says that it has begun, and ends when the gate opens.
fn gated(begun: &Arc<Notify>, gate: &Arc<Notify>, end: Result<u64, String>) -> Work {
    let (begun, gate) = (begun.clone(), gate.clone());
    Arc::new(move |_, stop: CancellationToken| {
        let (begun, gate, end) = (begun.clone(), gate.clone(), end.clone());
        Box::pin(async move {
            begun.notify_one();
            tokio::select! {
                () = gate.notified() => end,
                () = stop.cancelled() => Err("stopped".to_owned()),
            }
        })
    })
}

/// What becomes of a vertex that one run makes while another one wants it: what `meanwhile` does to the first, then how both
/// ended, and how often the second made something.
async fn meeting(
    end: Result<u64, String>,
    meanwhile: impl FnOnce(&CancellationToken, &Notify),
) -> [(Result<u64, SolveError<String>>, usize); 2] {
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut first = Bench::default();
    let one = first.add_work("slow", &[], gated(&begun, &gate, end));
    let mut second = first.beside();
    let other = second.sum("slow", 7, &[]);
    let top = second.sum("top", 1, &[other]);
    let runs = [first.runs(), second.runs()];
    let (stop, waiting) = (first.stop.clone(), second.waiting.clone());
    let first = tokio::spawn(async move { first.solve(&[one], true).await.map(|all| all[&one].value) });
    begun.notified().await;
    let second = tokio::spawn(async move { second.solve(&[top], true).await.map(|all| all[&top].value) });
    waiting.notified().await;
    meanwhile(&stop, &gate);
    let ended = [first.await.unwrap(), second.await.unwrap()];
    let [one, two] = runs.map(|runs| runs.load(Ordering::SeqCst));
    let [first, second] = ended;
    [(first, one), (second, two)]
}

#[tokio::test]
async fn what_another_run_makes_is_waited_for() {
    let [first, second] = meeting(Ok(7), |_, gate| gate.notify_one()).await;
    assert_eq!(first, (Ok(7), 1));
    assert_eq!(second, (Ok(8), 1), "only what lies above is made");
}

#[tokio::test]
async fn what_another_run_fails_to_make_or_gives_up_is_made() {
    let broken = Err("it broke".to_owned());
    let [first, second] = meeting(broken, |_, gate| gate.notify_one()).await;
    assert!(matches!(first.0, Err(SolveError::Failed(_, _))));
    assert_eq!(second, (Ok(8), 2));
    let [first, second] = meeting(Ok(7), |stop, _| stop.cancel()).await;
    assert_eq!(first.0, Err(SolveError::Stopped));
    assert_eq!(second, (Ok(8), 2));
}

#[tokio::test]
async fn what_another_run_is_held_up_with_is_made() {
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut first = Bench::default();
    let one = first.add_work("slow", &[], gated(&begun, &gate, Ok(7)));
    let mut second = first.beside();
    let other = second.sum("slow", 7, &[]);
    let (runs, stalled, waiting) = (second.runs(), first.stalled.clone(), second.waiting.clone());
    let first = tokio::spawn(async move { first.solve(&[one], true).await });
    begun.notified().await;
    let second = tokio::spawn(async move { second.solve(&[other], true).await });
    waiting.notified().await;
    stalled.notify_one();
    assert_eq!(second.await.unwrap().unwrap()[&other].value, 7);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    // It was not ended for that.
    gate.notify_one();
    assert_eq!(first.await.unwrap().unwrap()[&one].value, 7);
}

#[tokio::test]
async fn who_waits_for_another_run_can_be_stopped() {
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut first = Bench::default();
    let one = first.add_work("slow", &[], gated(&begun, &gate, Ok(7)));
    let mut second = first.beside();
    let other = second.sum("slow", 7, &[]);
    let (runs, stop, waiting) = (second.runs(), second.stop.clone(), second.waiting.clone());
    let first = tokio::spawn(async move { first.solve(&[one], true).await });
    begun.notified().await;
    let second = tokio::spawn(async move { second.solve(&[other], true).await });
    waiting.notified().await;
    stop.cancel();
    assert_eq!(second.await.unwrap(), Err(SolveError::Stopped));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    gate.notify_one();
    assert_eq!(first.await.unwrap().unwrap()[&one].value, 7);
}

#[tokio::test]
async fn what_is_to_be_made_anew_waits_for_nobody() {
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut first = Bench::default();
    let one = first.add_work("slow", &[], gated(&begun, &gate, Ok(7)));
    let mut second = first.beside();
    let other = second.sum("slow", 9, &[]);
    let first = tokio::spawn(async move { first.solve(&[one], true).await });
    begun.notified().await;
    assert_eq!(second.solve(&[other], false).await.unwrap()[&other].value, 9);
    gate.notify_one();
    assert_eq!(first.await.unwrap().unwrap()[&one].value, 7);
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

#[tokio::test]
async fn what_is_known_elsewhere_is_brought_only_when_it_is_needed() {
    // Only the value of the last one is wanted: those below it are known by their names.
    let (bench, ids) = far_chain(3, &[0, 1, 2]);
    let (cache, log, runs) = (bench.cache.clone(), bench.log.clone(), bench.runs());
    let results = bench.solve(&ids[2..], true).await.unwrap();
    assert_eq!(results[&ids[2]].value, 102);
    assert_eq!(
        (
            cache.1.brought.load(Ordering::SeqCst),
            runs.load(Ordering::SeqCst)
        ),
        (1, 0)
    );
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
    assert_eq!(
        (
            cache.1.brought.load(Ordering::SeqCst),
            runs.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
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
    assert_eq!(
        (
            cache.1.brought.load(Ordering::SeqCst),
            runs.load(Ordering::SeqCst)
        ),
        (2, 0)
    );
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
