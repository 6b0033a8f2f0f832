//! Runs at the same time that want the same: one makes it, the others wait for it, and no longer than it goes on.

use super::*;

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
