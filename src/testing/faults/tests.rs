//! Each toxic alone, on a clock that the test moves: the test is its neighbour on both sides, and its link.

use super::stage::{Order, Placed, Stage};
use super::toxic::{Dice, Fault, Toxic};
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::testing::memory::clock::Clock;
use crate::tunnel::{Cut, Exit, Message};
use crate::{Boxed, ConnId};
use async_channel::Receiver;
use futures_lite::future::{block_on, poll_once};
use std::sync::Arc;
use std::time::Duration;

struct Bench {
    clock: Clock,
    left: Option<Address<Message>>,
    right: Mailbox<Message>,
    orders: Address<Order>,
    run: Option<Boxed<'static, Exit>>,
    exit: Option<Exit>,
}

impl Bench {
    fn new(toxic: &Toxic) -> Bench {
        Bench::with_room(toxic, 1000)
    }

    fn with_room(toxic: &Toxic, room: usize) -> Bench {
        let clock = Clock::new();
        let (left, came) = mailbox(1000);
        let (to, right) = mailbox(room);
        let (orders, ordered) = mailbox(super::stage::ORDERS);
        let placed = Placed {
            name: toxic.name.clone(),
            fault: toxic.fault,
            after_bytes: toxic.after_bytes,
            dice: Dice::new(1, "proxy", ConnId::from(1), toxic),
        };
        let stage = Stage::new(Some(placed), came, to, ordered, Arc::new(clock.clone()), 0);
        let run: Boxed<'static, Exit> = Box::pin(stage.run());
        Bench { clock, left: Some(left), right, orders, run: Some(run), exit: None }
    }

    fn of(fault: Fault) -> Bench {
        Bench::new(&Toxic::new(fault))
    }

    /// Lets the toxic do all that it can do now.
    fn settle(&mut self) {
        // It yields now and then.
        for _ in 0..300 {
            let Some(run) = &mut self.run else { return };
            self.exit = block_on(poll_once(run));
            if self.exit.is_some() {
                self.run = None;
            }
        }
    }

    fn leave(&mut self, message: Message) {
        let left = self.left.as_ref().expect("the stream goes on");
        assert!(left.try_send(message).is_ok());
        self.settle();
    }

    fn send(&mut self, bytes: &[u8]) {
        self.leave(Message::Chunk(bytes.to_vec().into()));
    }

    fn fin(&mut self) {
        self.leave(Message::Fin);
    }

    /// The stream breaks off.
    fn lose(&mut self) {
        self.left = None;
        self.settle();
    }

    fn order(&mut self, order: Order) {
        assert!(self.orders.try_send(order).is_ok());
        self.settle();
    }

    fn pass(&mut self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.settle();
    }

    /// What has gone on since this was last asked, in the pieces in which it went; an empty one for `Fin`.
    fn pieces(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.right.try_recv())
            .map(|message| match message {
                Message::Chunk(chunk) => chunk.to_vec(),
                Message::Fin => Vec::new(),
            })
            .collect()
    }

    fn passed(&mut self) -> String {
        String::from_utf8(self.pieces().concat()).expect("the test sends text")
    }

    /// How the connection was cut, if it was.
    fn cut(&self) -> Option<&str> {
        match &self.exit {
            Some(Exit::Cut(Cut::Close(_))) => Some("close"),
            Some(Exit::Cut(Cut::Reset(_))) => Some("reset"),
            _ => None,
        }
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn latency(latency: u64, jitter: u64) -> Fault {
    Fault::Latency { latency: millis(latency), jitter: millis(jitter) }
}

#[test]
fn latency_holds_each_chunk_for_exactly_so_long_and_does_not_add_up() {
    let mut bench = Bench::of(latency(100, 0));
    bench.send(b"a");
    bench.pass(50);
    bench.send(b"b");
    bench.fin();
    bench.pass(49);
    assert_eq!(bench.passed(), "");
    bench.pass(1);
    assert_eq!(bench.passed(), "a");
    bench.pass(49);
    assert_eq!(bench.pieces(), [b""; 0]);
    bench.pass(1);
    assert_eq!(bench.pieces(), [&b"b"[..], b""], "and the end with the last of it");
}

#[test]
fn jitter_stays_within_its_bounds_keeps_the_order_and_is_drawn_by_the_place_in_the_stream() {
    let arrivals = || {
        let mut bench = Bench::of(latency(100, 20));
        for number in 0..100_u8 {
            bench.send(&[b'!' + number % 90]);
        }
        let mut arrivals = Vec::new();
        for milli in 0..=120 {
            arrivals.extend(bench.pieces().into_iter().map(|piece| (milli, piece)));
            bench.pass(1);
        }
        arrivals
    };
    let first = arrivals();
    assert_eq!(first.len(), 100);
    assert!((80..=120).contains(&first[0].0) && first[99].0 <= 120, "{first:?}");
    assert!(first[0].0 < first[99].0, "they differ");
    assert!(first.iter().enumerate().all(|(n, (_, piece))| piece[0] == b'!' + n as u8 % 90));
    assert_eq!(first, arrivals());
}

#[test]
fn a_change_of_latency_counts_from_when_the_bytes_came() {
    let mut bench = Bench::of(latency(100, 0));
    bench.send(b"a");
    bench.pass(60);
    bench.order(Order::Change(latency(200, 0)));
    bench.pass(139);
    assert_eq!(bench.passed(), "");
    bench.pass(1);
    assert_eq!(bench.passed(), "a");
    bench.send(b"b");
    bench.pass(10);
    bench.order(Order::Change(latency(5, 0)));
    assert_eq!(bench.passed(), "b");
}

#[test]
fn whoever_leaves_lets_go_of_everything_at_once_and_in_order() {
    for fault in [latency(60_000, 0), Fault::Bandwidth { rate: 1 }, Fault::Bandwidth { rate: 0 }] {
        let mut bench = Bench::of(fault);
        bench.send(b"one ");
        bench.send(b"two ");
        bench.order(Order::Leave);
        bench.send(b"three");
        assert_eq!(bench.passed(), "one two three", "{fault:?}");
        bench.lose();
        assert!(matches!(bench.exit, Some(Exit::Deserted)), "{fault:?}");
    }
}

#[test]
fn a_toxic_that_leaves_with_the_end_in_its_hand_passes_it_on() {
    for fault in [
        latency(60_000, 0),
        Fault::SlowClose { delay: millis(60_000) },
        Fault::ResetPeer { timeout: millis(60_000) },
    ] {
        let mut bench = Bench::of(fault);
        if fault == latency(60_000, 0) {
            // It holds the end only behind what it holds.
            bench.send(b"a");
        }
        bench.fin();
        assert_eq!(bench.pieces(), [b""; 0], "{fault:?}");
        bench.order(Order::Leave);
        assert_eq!(bench.pieces().last(), Some(&vec![]), "{fault:?}");
        assert!(matches!(bench.exit, Some(Exit::Finished)), "{fault:?}");
    }
}

#[test]
fn what_came_before_the_stream_broke_off_is_passed_on_and_no_end_is_made_up() {
    for (fault, time) in [
        (latency(100, 0), 100),
        (Fault::Bandwidth { rate: 1 }, 5),
        (Fault::SlowClose { delay: millis(100) }, 100),
        (Fault::Slicer { average_size: 2, size_variation: 0, delay: Duration::ZERO }, 0),
        (Fault::LimitData { bytes: 100 }, 0),
    ] {
        let mut bench = Bench::of(fault);
        bench.send(b"bytes");
        bench.lose();
        bench.pass(time);
        assert_eq!(bench.passed(), "bytes", "{fault:?}");
        assert!(matches!(bench.exit, Some(Exit::Deserted)), "{fault:?}: {:?}", bench.exit);
    }
}

#[test]
fn bandwidth_passes_what_its_rate_allows_in_parts_of_a_tenth_of_a_second() {
    let mut bench = Bench::of(Fault::Bandwidth { rate: 1 });
    bench.send(&[b'x'; 250]);
    let mut passed = Vec::new();
    for milli in 0..=250 {
        let bytes = bench.passed().len();
        if bytes > 0 {
            passed.push((milli, bytes));
        }
        bench.pass(1);
    }
    assert_eq!(passed, [(100, 100), (200, 100), (250, 50)]);
}

#[test]
fn bandwidth_0_passes_nothing_until_that_changes() {
    let mut bench = Bench::of(Fault::Bandwidth { rate: 0 });
    bench.send(b"bytes");
    bench.pass(1_000_000);
    assert_eq!(bench.passed(), "");
    bench.order(Order::Change(Fault::Bandwidth { rate: 5 }));
    bench.pass(1);
    assert_eq!(bench.passed(), "bytes");
}

#[test]
fn slow_close_holds_the_end_alone() {
    let mut bench = Bench::of(Fault::SlowClose { delay: millis(100) });
    bench.send(b"a");
    assert_eq!(bench.passed(), "a");
    bench.fin();
    bench.pass(99);
    assert_eq!(bench.pieces(), [b""; 0]);
    bench.pass(1);
    assert_eq!(bench.pieces(), [b""; 1]);
}

#[test]
fn timeout_drops_all_and_closes_in_time_or_never() {
    let mut bench = Bench::of(Fault::Timeout { timeout: millis(100) });
    bench.send(b"a");
    bench.pass(99);
    bench.send(b"b");
    assert_eq!(bench.cut(), None);
    bench.pass(1);
    assert_eq!((bench.pieces(), bench.cut()), (vec![vec![]], Some("close")));

    let mut bench = Bench::of(Fault::Timeout { timeout: Duration::ZERO });
    bench.send(b"a");
    bench.pass(1_000_000);
    assert_eq!((bench.passed(), bench.cut()), (String::new(), None));
    bench.order(Order::Change(Fault::Timeout { timeout: millis(10) }));
    bench.pass(10);
    assert_eq!(bench.cut(), Some("close"));
}

#[test]
fn a_timeout_that_leaves_or_sees_the_end_closes_for_bytes_are_missing() {
    let check = |step: fn(&mut Bench)| {
        let mut bench = Bench::of(Fault::Timeout { timeout: Duration::ZERO });
        bench.send(b"a");
        step(&mut bench);
        assert_eq!((bench.pieces(), bench.cut()), (vec![vec![]], Some("close")));
    };
    check(Bench::fin);
    check(|bench| bench.order(Order::Leave));
}

#[test]
fn reset_peer_waits_for_a_byte_and_passes_none() {
    let mut bench = Bench::of(Fault::ResetPeer { timeout: millis(100) });
    bench.pass(1_000_000);
    assert_eq!(bench.cut(), None);
    bench.send(b"a");
    bench.pass(99);
    assert_eq!(bench.cut(), None);
    bench.pass(1);
    assert_eq!((bench.pieces(), bench.cut()), (vec![], Some("reset")));
}

#[test]
fn a_toxic_after_so_many_bytes_lets_exactly_those_pass() {
    let reset = Fault::ResetPeer { timeout: Duration::ZERO };
    for (chunks, passed) in [(&["hello"][..], "hel"), (&["he", "l"], "hel"), (&["hel"], "hel")] {
        let mut bench = Bench::new(&Toxic::new(reset).after_bytes(3));
        for chunk in chunks {
            assert_eq!(bench.cut(), None);
            bench.send(chunk.as_bytes());
        }
        assert_eq!((bench.passed().as_str(), bench.cut()), (passed, Some("reset")), "{chunks:?}");
    }
    let mut bench = Bench::new(&Toxic::new(latency(100, 0)).after_bytes(3));
    bench.send(b"hello");
    assert_eq!(bench.passed(), "hel");
    bench.pass(100);
    assert_eq!(bench.passed(), "lo");
}

#[test]
fn limit_data_passes_exactly_so_many_and_closes() {
    for chunks in [&["hello"][..], &["h", "el", "lo"], &["hel"]] {
        let mut bench = Bench::of(Fault::LimitData { bytes: 3 });
        for chunk in chunks {
            if bench.cut().is_none() {
                bench.send(chunk.as_bytes());
            }
        }
        let pieces = bench.pieces();
        assert_eq!(pieces.concat(), b"hel", "{chunks:?}");
        assert_eq!((pieces.last().map(Vec::len), bench.cut()), (Some(0), Some("close")));
    }
    let mut bench = Bench::of(Fault::LimitData { bytes: 0 });
    assert_eq!(bench.cut(), None);
    bench.send(b"a");
    assert_eq!((bench.pieces(), bench.cut()), (vec![vec![]], Some("close")));
}

#[test]
fn slices_end_at_the_same_places_however_the_bytes_come() {
    let slicer = Fault::Slicer { average_size: 10, size_variation: 5, delay: Duration::ZERO };
    let ends = |chunks: &[usize]| {
        let mut bench = Bench::of(slicer);
        for chunk in chunks {
            bench.send(&vec![b'x'; *chunk]);
        }
        let mut end = 0;
        let ends = bench.pieces().into_iter().map(|piece| {
            end += piece.len();
            end
        });
        ends.collect::<Vec<_>>()
    };
    let whole = ends(&[1000]);
    let lengths: Vec<usize> = whole.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(lengths[..lengths.len() - 1].iter().all(|length| (5..=15).contains(length)));
    assert!(lengths.iter().any(|length| *length != lengths[0]), "they vary: {lengths:?}");
    assert_eq!(whole, ends(&[1000]));
    let pieces = ends(&[1, 333, 200, 400, 66]);
    let missing: Vec<_> = whole.iter().filter(|end| !pieces.contains(end)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_slicer_without_sizes_still_passes_something() {
    let mut bench =
        Bench::of(Fault::Slicer { average_size: 0, size_variation: 0, delay: Duration::ZERO });
    bench.send(b"abc");
    assert_eq!(bench.pieces(), [b"a", b"b", b"c"]);
}

#[test]
fn slices_are_apart_by_the_delay() {
    let mut bench =
        Bench::of(Fault::Slicer { average_size: 1, size_variation: 0, delay: millis(10) });
    bench.send(b"abc");
    assert_eq!(bench.passed(), "a");
    bench.pass(9);
    assert_eq!(bench.passed(), "");
    bench.pass(1);
    assert_eq!(bench.passed(), "b");
    bench.order(Order::Leave);
    assert_eq!(bench.passed(), "c");
}

/// Turns the toxic to a new neighbour; gives that, and where in the stream it begins.
fn turn(
    bench: &mut Bench,
    after: Option<Receiver<std::convert::Infallible>>,
) -> (Mailbox<Message>, u64) {
    let (to, right) = mailbox(10);
    let (reply, offset) = async_channel::bounded(1);
    bench.order(Order::Turn { to, after, reply });
    (right, offset.try_recv().expect("it answers at once"))
}

#[test]
fn an_order_is_taken_at_once_though_nobody_takes_the_bytes() {
    // Its neighbour has room for one message, and is given two.
    let mut bench = Bench::with_room(&Toxic::new(Fault::LimitData { bytes: 100 }), 1);
    bench.send(b"one");
    bench.send(b"four");
    let (mut right, offset) = turn(&mut bench, None);
    assert_eq!(offset, 7, "the second message is the old neighbour's, who has not taken it yet");
    bench.send(b"new");
    assert_eq!(bench.passed(), "one");
    bench.settle();
    assert_eq!(bench.passed(), "four");
    bench.settle();
    assert!(matches!(right.try_recv(), Some(Message::Chunk(chunk)) if *chunk == b"new"[..]));
}

#[test]
fn nothing_goes_past_somebody_who_leaves_before_he_has_passed_on_all_he_had() {
    let mut bench = Bench::of(Fault::LimitData { bytes: 100 });
    bench.send(b"old");
    let (leaving, gone) = async_channel::bounded(1);
    let (mut right, offset) = turn(&mut bench, Some(gone));
    assert_eq!(offset, 3);
    bench.send(b"new");
    bench.pass(1000);
    assert!(right.try_recv().is_none());
    // While it waits, another neighbour may come in between: the one who leaves is still waited for.
    let (mut nearer, offset) = turn(&mut bench, None);
    assert_eq!(offset, 3);
    assert!(nearer.try_recv().is_none());
    drop(leaving);
    bench.settle();
    assert!(matches!(nearer.try_recv(), Some(Message::Chunk(chunk)) if *chunk == b"new"[..]));
    assert!(right.try_recv().is_none());
}

/// Whoever turns past it waits for its end, and must not be let past those for whom it waits (the simulator's seed 20403).
#[test]
fn whoever_leaves_outlasts_those_who_leave_before_it() {
    let mut bench = Bench::of(Fault::LimitData { bytes: 100 });
    let (leaving, gone) = async_channel::bounded(1);
    let (_right, _) = turn(&mut bench, Some(gone));
    bench.order(Order::Leave);
    bench.lose();
    assert!(bench.exit.is_none());
    drop(leaving);
    bench.settle();
    assert!(matches!(bench.exit, Some(Exit::Deserted)));
}

#[test]
fn a_toxic_whose_neighbour_has_gone_ends_whatever_it_waits_for() {
    for fault in [
        latency(60_000, 0),
        Fault::Bandwidth { rate: 0 },
        Fault::Timeout { timeout: Duration::ZERO },
        Fault::ResetPeer { timeout: millis(60_000) },
        Fault::Slicer { average_size: 1, size_variation: 0, delay: millis(60_000) },
    ] {
        let mut bench = Bench::of(fault);
        bench.send(b"bytes");
        bench.right = mailbox(1).1;
        bench.settle();
        assert!(matches!(bench.exit, Some(Exit::Deserted)), "{fault:?}");
    }
}
