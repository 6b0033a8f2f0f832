//! Everything that is known without work is asked for in one go, and alone where the answers do not hold.

use super::*;

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
