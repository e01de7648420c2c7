//! An outbox from both ends: what is kept, in which order, and what is counted as dropped.

use super::*;

fn flush(timestamp: i64, samples: usize) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        timestamp,
        samples: vec![0.0; samples],
        ..Snapshot::default()
    })
}

fn outbox(flushes: usize, bytes: usize) -> (Outbox, Queue, Arc<Outside>) {
    let outside = Arc::new(Outside::default());
    let (outbox, queue) = Outbox::new("test", |_| true, Limits { flushes, bytes }, outside.clone());
    (outbox, queue, outside)
}

/// Closes the outbox and takes everything out.
fn left(outbox: Outbox, queue: &Queue) -> Vec<i64> {
    drop(outbox);
    let mut left = Vec::new();
    while let Some(snapshot) = queue.next() {
        left.push(snapshot.timestamp);
        assert!(queue.done());
    }
    left
}

#[test]
fn the_oldest_make_room_and_the_rest_keeps_its_order() {
    let (outbox, queue, outside) = outbox(3, usize::MAX);
    (0..7).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
    assert_eq!(outside.flushes_dropped.total(), 4);
    assert_eq!(queue.len(), 3);
    assert_eq!(left(outbox, &queue), [4, 5, 6]);
    assert_eq!(outside.flushes_dropped.total(), 4);
}

#[test]
fn memory_is_a_limit_too_but_the_newest_is_kept() {
    let two = flush(0, 1000).memory() + flush(1, 1000).memory();
    let (outbox, queue, outside) = outbox(10, two);
    (0..4).for_each(|timestamp| outbox.put(&flush(timestamp, 1000)));
    assert_eq!(outside.flushes_dropped.total(), 2);
    assert_eq!(queue.len(), 2);
    outbox.put(&flush(4, 1_000_000));
    assert_eq!(outside.flushes_dropped.total(), 4);
    assert_eq!(left(outbox, &queue), [4]);
}

#[test]
fn the_one_in_hand_is_not_dropped_before_it_is_laid_back() {
    let (outbox, queue, outside) = outbox(2, usize::MAX);
    outbox.put(&flush(0, 0));
    assert_eq!(queue.next().expect("a flush").timestamp, 0);
    (1..5).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
    assert_eq!(outside.flushes_dropped.total(), 2, "1 and 2");
    assert_eq!(queue.len(), 3);
    queue.put_back();
    assert_eq!(outside.flushes_dropped.total(), 3);
    assert_eq!(left(outbox, &queue), [3, 4]);
}

#[test]
fn what_is_abandoned_is_counted_once() {
    let (outbox, queue, outside) = outbox(5, usize::MAX);
    (0..3).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
    queue.next().expect("a flush");
    assert_eq!(queue.abandon().lost, 3);
    assert!(
        !queue.done(),
        "the flush in hand was counted as lost already"
    );
    assert_eq!(queue.abandon(), Left::default());
    outbox.put(&flush(3, 0));
    assert_eq!(outside.flushes_dropped.total(), 4);
    assert!(queue.next().is_none());
}

#[test]
fn an_outbox_that_takes_over_loses_nothing_and_keeps_the_order() {
    let (old, old_queue, outside) = outbox(9, usize::MAX);
    let (new, queue) = Outbox::new("test", |_| true, Limits::default(), outside.clone());
    (0..4).for_each(|timestamp| old.put(&flush(timestamp, 0)));
    old_queue.next().expect("a flush");
    new.put(&flush(4, 0));
    new.take_over(old);
    assert!(old_queue.is_closed());
    assert_eq!((old_queue.len(), queue.len()), (1, 4));
    // What was in hand could not be delivered, while the heir has its oldest in hand.
    assert_eq!(queue.next().expect("a flush").timestamp, 1);
    assert_eq!(old_queue.abandon(), Left::default());
    assert!(old_queue.next().is_none());
    queue.put_back();
    assert_eq!(left(new, &queue), [1, 0, 2, 3, 4], "each has its own time");
    assert_eq!(outside.flushes_dropped.total(), 0);
}

#[test]
fn an_heir_that_has_ended_passes_on_what_it_inherits() {
    let outside = Arc::new(Outside::default());
    let new = || Outbox::new("test", |_| true, Limits::default(), outside.clone());
    let ((first, first_queue), (second, second_queue), (third, queue)) = (new(), new(), new());
    (0..2).for_each(|timestamp| first.put(&flush(timestamp, 0)));
    first_queue.next().expect("a flush");
    second.take_over(first);
    third.take_over(second);
    // The second has nothing to do and ends, while the first is still at its delivery.
    assert!(second_queue.next().is_none());
    assert_eq!(second_queue.abandon(), Left::default());
    assert_eq!(first_queue.abandon(), Left::default());
    assert_eq!(left(third, &queue), [0, 1]);
    assert_eq!(outside.flushes_dropped.total(), 0);
}

#[test]
fn what_was_sent_is_kept_until_it_is_confirmed() {
    let (old, old_queue, outside) = outbox(9, usize::MAX);
    let (new, queue) = Outbox::new("test", |_| true, Limits::default(), outside.clone());
    assert!(!old_queue.sent(), "nothing is in hand");
    (0..4).for_each(|timestamp| old.put(&flush(timestamp, 0)));
    for confirmed in [false, true, true] {
        old_queue.next().expect("a flush");
        assert_eq!(old_queue.sent(), confirmed);
    }
    assert!(old_queue.is_unconfirmed());
    assert!(old_queue.confirm());
    assert!(!old_queue.confirm());
    old_queue.next().expect("a flush");
    assert!(!old_queue.sent());
    assert!(old_queue.is_empty());
    new.put(&flush(4, 0));
    new.take_over(old);
    assert_eq!(old_queue.abandon(), Left::default());
    assert!(!old_queue.confirm(), "it is the heir's");
    queue.next().expect("a flush");
    assert!(!queue.sent());
    assert_eq!(
        queue.abandon().lost,
        2,
        "the one sent and the one that waits"
    );
    assert_eq!(outside.flushes_dropped.total(), 2);
    drop(new);
}

#[test]
fn posts_kept_are_told_once_and_a_stop_ends_the_wait_for_them() {
    let (_outbox, queue, _) = outbox(10, 10);
    queue.keeps(3);
    assert_eq!((queue.take_kept(), queue.take_kept()), (3, 0));
    assert!(queue.wait_out(Duration::from_millis(1)), "nobody stops");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| queue.wait_out(Duration::from_secs(3600)));
        queue.ends_by(Instant::now());
        assert!(!waits.join().expect("no panic"), "the stop came before");
    });
}

/// A directory that goes with the test, and a spool in it.
struct Spooled(std::path::PathBuf);

impl Spooled {
    fn of(test: &str) -> Self {
        let name = format!("statsd-fast-outbox-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn spool(&self, outside: &Arc<Outside>) -> Arc<Spool> {
        let options = super::super::spool::Options {
            directory: self.0.clone(),
            bytes: 1 << 20,
        };
        Spool::start(&options, "test", outside.clone(), None).expect("a thread")
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn spooled(flushes: usize, spool: &Arc<Spool>, outside: &Arc<Outside>) -> (Outbox, Queue) {
    let limits = Limits {
        flushes,
        bytes: usize::MAX,
    };
    Outbox::spooled(
        "test",
        |_| true,
        limits,
        outside.clone(),
        Some(spool.clone()),
    )
}

fn all_written(outside: &Outside, flushes: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while outside.flushes_spooled.total() < flushes {
        assert!(Instant::now() < until, "waited in vain for the disk");
        std::thread::yield_now();
    }
}

#[test]
fn one_flush_after_the_other_touches_no_disk() {
    let (place, outside) = (Spooled::of("healthy"), Arc::new(Outside::default()));
    let spool = place.spool(&outside);
    let (outbox, queue) = spooled(9, &spool, &outside);
    for timestamp in 0..5 {
        outbox.put(&flush(timestamp, 0));
        queue.next().expect("a flush");
        assert!(queue.done());
    }
    drop(outbox);
    assert_eq!(queue.abandon(), Left::default());
    spool.end(Instant::now() + Duration::from_secs(30));
    assert_eq!(outside.flushes_spooled.total(), 0);
}

#[test]
fn what_memory_has_no_room_for_comes_back_from_the_disk_in_order() {
    let (place, outside) = (Spooled::of("order"), Arc::new(Outside::default()));
    let spool = place.spool(&outside);
    let (outbox, queue) = spooled(2, &spool, &outside);
    outbox.put(&flush(0, 0));
    let tried = queue.next().expect("a flush");
    queue.put_back();
    for timestamp in 1..20_i64 {
        all_written(&outside, timestamp.cast_unsigned());
        outbox.put(&flush(timestamp, 0));
    }
    all_written(&outside, 20);
    assert_eq!(queue.len(), 20);
    assert!(spool.waiting() >= 17, "{}", spool.waiting());
    let again = queue.next().expect("a flush");
    assert!(Arc::ptr_eq(&tried, &again), "its backend knows it");
    queue.put_back();
    assert_eq!(left(outbox, &queue), (0..20).collect::<Vec<_>>());
    assert_eq!(outside.flushes_dropped.total(), 0);
    assert_eq!(outside.flushes_on_disk.now(), 0);
}

#[test]
fn what_was_tried_stays_in_memory_when_its_neighbours_are_not_on_disk() {
    let (place, outside) = (Spooled::of("tried"), Arc::new(Outside::default()));
    // A disk with room for one flush.
    let options = super::super::spool::Options {
        directory: place.0.clone(),
        bytes: 4096,
    };
    let spool = Spool::start(&options, "test", outside.clone(), None).expect("a thread");
    let (outbox, queue) = spooled(2, &spool, &outside);
    outbox.put(&flush(0, 0));
    let tried = queue.next().expect("a flush");
    queue.put_back();
    all_written(&outside, 1);
    // Larger than the disk: these wait in memory alone.
    for timestamp in 1..9 {
        outbox.put(&flush(timestamp, 1000));
    }
    let again = queue.next().expect("a flush");
    assert!(Arc::ptr_eq(&tried, &again), "its backend knows it");
    queue.put_back();
    let left = left(outbox, &queue);
    assert_eq!((left[0], left[left.len() - 1]), (0, 8));
    assert_eq!(outside.flushes_dropped.total(), 9 - left.len() as u64);
}

#[test]
fn what_is_abandoned_waits_for_the_next_process() {
    let (place, outside) = (Spooled::of("abandoned"), Arc::new(Outside::default()));
    let spool = place.spool(&outside);
    let (outbox, queue) = spooled(9, &spool, &outside);
    (0..3).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
    queue.next().expect("a flush");
    drop(outbox);
    let left = Left {
        lost: 0,
        on_disk: 3,
    };
    assert_eq!(queue.abandon(), left);
    assert!(queue.next().is_none(), "nobody takes them out again");
    // The one in hand arrives after all.
    assert!(queue.done());
    assert!(!queue.done());
    spool.end(Instant::now() + Duration::from_secs(30));
    let spool = place.spool(&outside);
    let (outbox, queue) = spooled(9, &spool, &outside);
    assert_eq!(self::left(outbox, &queue), [1, 2]);
    assert_eq!(outside.flushes_dropped.total(), 0);
}

#[test]
fn an_heir_has_what_is_on_disk_and_what_comes_back() {
    let (place, outside) = (Spooled::of("heir"), Arc::new(Outside::default()));
    let spool = place.spool(&outside);
    let (old, old_queue) = spooled(1, &spool, &outside);
    old.put(&flush(0, 0));
    old_queue.next().expect("a flush");
    (1..6).for_each(|timestamp| {
        old.put(&flush(timestamp, 0));
        all_written(&outside, timestamp.cast_unsigned() + 1);
    });
    let (new, queue) = spooled(9, &spool, &outside);
    new.take_over(old);
    new.put(&flush(6, 0));
    assert_eq!(old_queue.abandon(), Left::default());
    assert!(old_queue.next().is_none());
    assert_eq!(left(new, &queue), (0..7).collect::<Vec<_>>());
    assert_eq!(outside.flushes_on_disk.now(), 0);
    assert_eq!(outside.flushes_dropped.total(), 0);
}

#[test]
fn what_was_sent_leaves_the_disk_when_it_is_confirmed() {
    let (place, outside) = (Spooled::of("sent"), Arc::new(Outside::default()));
    let spool = place.spool(&outside);
    let (outbox, queue) = spooled(9, &spool, &outside);
    (0..3).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
    all_written(&outside, 3);
    queue.next().expect("a flush");
    assert!(!queue.sent());
    assert_eq!(outside.flushes_on_disk.now(), 3);
    queue.next().expect("a flush");
    assert!(queue.sent());
    assert_eq!(outside.flushes_on_disk.now(), 2);
    drop(outbox);
    assert_eq!(
        queue.abandon().on_disk,
        2,
        "the one sent and the one that waits"
    );
}

#[test]
fn a_closed_outbox_ends_every_wait() {
    let (outbox, queue, _) = outbox(5, usize::MAX);
    assert!(!queue.is_closed());
    std::thread::scope(|scope| {
        let next = scope.spawn(|| queue.next());
        let pause = scope.spawn(|| queue.pause(Duration::from_secs(3600)));
        drop(outbox);
        assert!(next.join().expect("no panic").is_none());
        pause.join().expect("no panic");
    });
    assert!(queue.is_closed());
}
