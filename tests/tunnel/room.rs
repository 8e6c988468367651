//! How many connections there are at once, and how many bytes the proxy holds.

use super::worlds;
use async_channel::{Receiver, Sender};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use trunkline::testing::behaviours::HalfClose;
use trunkline::testing::{Ending, FakeBackend, Harness, block_on};
use trunkline::{ConnId, Ended, Endpoint, Events, Limits, Side};

/// Counts connections, and the most there were.
#[derive(Clone, Default)]
struct Crowd {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Events for Crowd {
    fn on_connect(&self, _conn: ConnId, _client: &Endpoint) {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
    }

    fn on_close(&self, _ended: &Ended) {
        self.now.fetch_sub(1, SeqCst);
    }
}

#[test]
fn clients_over_the_limit_wait_and_are_served_when_their_turn_comes() {
    for world in worlds() {
        let crowd = Crowd::default();
        let harness = world
            .backend(FakeBackend::by_hand())
            .with(|config| config.max_conn = 2)
            .events(crowd.clone())
            .start();
        block_on(async {
            let mut clients = Vec::new();
            for number in 0..6u8 {
                let mut client = harness.client().await;
                client.send(&[number]).await;
                client.fin();
                clients.push(client);
            }
            // Two at a time, and in their order: the two that are carried must end before the next two come.
            let mut served = Vec::new();
            for _ in 0..3 {
                let mut pair = Vec::new();
                for _ in 0..2 {
                    let mut peer = harness.backend(0).accept().await;
                    served.extend(peer.recv_to_end().await.bytes);
                    pair.push(peer);
                }
                assert_eq!(harness.handle().list().await.len(), 2);
                assert_eq!(harness.backend(0).accepted(), served.len());
                for mut peer in pair {
                    peer.send(b"done").await;
                    peer.close();
                }
            }
            served.sort_unstable();
            assert_eq!(served, [0, 1, 2, 3, 4, 5]);
            for mut client in clients {
                let heard = client.recv_to_end().await;
                assert_eq!((&heard.bytes[..], heard.ending), (&b"done"[..], Ending::Fin));
            }
            assert_eq!(harness.stop().await.clean, 6);
        });
        assert_eq!(crowd.most.load(SeqCst), 2);
    }
}

#[test]
fn a_thousand_short_connections_leave_nothing_behind() {
    for world in worlds() {
        let crowd = Crowd::default();
        let harness = world.backend(FakeBackend::echo()).events(crowd.clone()).start();
        block_on(async {
            let request = HalfClose(b"hello".to_vec());
            for _ in 0..1000 {
                let heard = harness.run(&request).await;
                assert_eq!((&heard.bytes[..], heard.ending), (&b"hello"[..], Ending::Fin));
            }
            let report = harness.stop().await;
            assert_eq!((report.open, report.accepted, report.clean), (0, 1000, 1000));
            assert_eq!((report.to_backend, report.to_client), (5000, 5000));
        });
        assert_eq!(crowd.now.load(SeqCst), 0);
    }
}

/// Says how many bytes the proxy has read from one side so far.
struct Meter(Side, Arc<AtomicUsize>, Sender<usize>);

impl Events for Meter {
    fn on_receive(&self, _conn: ConnId, from: Side, bytes: &[u8]) {
        if from == self.0 {
            let total = self.1.fetch_add(bytes.len(), SeqCst) + bytes.len();
            self.2.try_send(total).expect("there is room in the log");
        }
    }
}

/// Waits until the proxy has read this much.
async fn read(totals: &Receiver<usize>, wanted: usize) {
    while totals.recv().await.expect("the proxy runs") < wanted {}
}

const LIMITS: Limits = Limits { chunk: 100, mailbox: 3, spare: 16 };
/// What each direction of an in-memory connection holds.
const CAPACITY: usize = 150;
/// What one direction of a connection may hold in the proxy.
const HELD: usize = (2 * LIMITS.mailbox + 1) * LIMITS.chunk;

/// One side sends far more than the proxy may hold, and the other takes it a little at a time.
fn a_slow_reader_bounds(from: Side) {
    assert_eq!(2 * HELD, LIMITS.per_connection());
    let taken = Arc::new(AtomicUsize::new(0));
    let (sender, totals) = async_channel::bounded(10_000);
    let harness = Harness::builder()
        .in_memory_holding(CAPACITY)
        .backend(FakeBackend::by_hand())
        .with(|config| config.limits = LIMITS)
        .events(Meter(from, Arc::clone(&taken), sender))
        .start();
    block_on(async {
        let client = harness.client().await;
        let backend = harness.backend(0).accept().await;
        let (mut fast, mut slow) = match from {
            Side::Client => (client, backend),
            Side::Backend => (backend, client),
        };
        let many: Vec<u8> = (0..20 * HELD).map(|number| number as u8).collect();
        let sending = async {
            fast.send(&many).await;
            fast.fin();
        };
        let reading = async {
            // Nobody reads: this much at least goes on its way, and then everything stands.
            read(&totals, CAPACITY + LIMITS.mailbox * LIMITS.chunk).await;
            let mut got = Vec::new();
            while let Some(bytes) = slow.recv().await {
                got.extend(bytes);
                let held = taken.load(SeqCst).saturating_sub(got.len());
                assert!(held <= HELD + CAPACITY, "{held} bytes are between the two");
            }
            assert!(got == many);
            slow.fin();
        };
        futures_lite::future::zip(sending, reading).await;
        assert!(harness.ended().await.clean);
        let report = harness.stop().await;
        let marks = [report.backend_writer_high_water, report.client_writer_high_water];
        assert_eq!(marks[usize::from(from == Side::Backend)], LIMITS.mailbox);
    });
}

#[test]
fn a_slow_backend_holds_its_client_back_within_the_limits() {
    a_slow_reader_bounds(Side::Client);
}

#[test]
fn a_slow_client_holds_its_backend_back_within_the_limits() {
    a_slow_reader_bounds(Side::Backend);
}

#[test]
fn a_direction_that_stands_does_not_stop_the_other() {
    let (sender, totals) = async_channel::bounded(10_000);
    let harness = Harness::builder()
        .in_memory_holding(CAPACITY)
        .backend(FakeBackend::by_hand())
        .with(|config| config.limits = LIMITS)
        .events(Meter(Side::Client, Arc::default(), sender))
        .start();
    block_on(async {
        let mut client = harness.client().await;
        let mut backend = harness.backend(0).accept().await;
        let many = vec![b'x'; 4 * HELD];
        let (to, from) = client.halves();
        let answered = async {
            read(&totals, CAPACITY + LIMITS.mailbox * LIMITS.chunk).await;
            // The backend has read nothing, and is heard all the same.
            backend.send(b"stop that").await;
            assert_eq!(from.recv_exact(9).await, b"stop that");
            assert_eq!(backend.recv_exact(many.len()).await, many);
        };
        futures_lite::future::zip(to.send(&many), answered).await;
    });
}
