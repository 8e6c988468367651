//! What an embedder is told, in which order, and what becomes of a callback that panics.

use super::worlds;
use async_channel::{Receiver, Sender};
use std::collections::HashMap;
use trunkline::testing::{Ending, FakeBackend, Harness, block_on};
use trunkline::{By, ConnId, Ended, Endpoint, Events, Report, Side};

/// What was called.
#[derive(Debug, PartialEq)]
enum Call {
    Start(usize),
    Connect(ConnId),
    Receive(ConnId, Side, Vec<u8>),
    Close(ConnId),
    Timer,
    Shutdown,
}

/// Writes the calls down.
struct Log(Sender<Call>);

impl Log {
    fn new() -> (Log, Receiver<Call>) {
        let (sender, calls) = async_channel::bounded(10_000);
        (Log(sender), calls)
    }

    fn put(&self, call: Call) {
        self.0.try_send(call).expect("there is room in the log");
    }
}

impl Events for Log {
    fn on_start(&self, listening: &[Endpoint]) {
        self.put(Call::Start(listening.len()));
    }

    fn on_connect(&self, conn: ConnId, _client: &Endpoint) {
        self.put(Call::Connect(conn));
    }

    fn on_receive(&self, conn: ConnId, from: Side, bytes: &[u8]) {
        self.put(Call::Receive(conn, from, bytes.to_vec()));
    }

    fn on_close(&self, ended: &Ended) {
        self.put(Call::Close(ended.conn));
    }

    fn on_timer(&self, _report: &Report) {
        self.put(Call::Timer);
    }

    fn on_shutdown(&self) {
        self.put(Call::Shutdown);
    }
}

fn taken(calls: &Receiver<Call>) -> Vec<Call> {
    std::iter::from_fn(|| calls.try_recv().ok()).collect()
}

#[test]
fn one_connection_is_told_from_its_start_to_its_end() {
    for world in worlds() {
        let (log, calls) = Log::new();
        let harness = world.backend(FakeBackend::echo()).events(log).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"hello").await;
            assert_eq!(client.recv_exact(5).await, b"hello");
            client.close();
            let conn = harness.ended().await.conn;
            harness.stop().await;
            let expected = [
                Call::Start(1),
                Call::Connect(conn),
                Call::Receive(conn, Side::Client, b"hello".to_vec()),
                Call::Receive(conn, Side::Backend, b"hello".to_vec()),
                Call::Close(conn),
                Call::Shutdown,
            ];
            assert_eq!(taken(&calls), expected);
        });
    }
}

#[test]
fn for_each_of_many_connections_the_order_is_connect_receive_close_once() {
    const CLIENTS: usize = 20;
    for world in worlds() {
        let (log, calls) = Log::new();
        let harness = world.backend(FakeBackend::echo()).events(log).start();
        block_on(async {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                let mut client = harness.client().await;
                client.send(b"hello").await;
                clients.push(client);
            }
            for (number, mut client) in clients.into_iter().enumerate() {
                assert_eq!(client.recv_exact(5).await, b"hello");
                // Some end cleanly and some do not: both are told once.
                if number % 2 == 0 { client.close() } else { client.reset() }
            }
            for _ in 0..CLIENTS {
                harness.ended().await;
            }
            let report = harness.stop().await;
            assert_eq!((report.clean, report.aborted), (10, 10));
        });
        let calls = taken(&calls);
        assert_eq!(calls.first(), Some(&Call::Start(1)));
        assert_eq!(calls.last(), Some(&Call::Shutdown));
        let mut stages: HashMap<ConnId, &str> = HashMap::new();
        for call in &calls {
            let (conn, before, after): (_, &[Option<&&str>], _) = match call {
                Call::Connect(conn) => (conn, &[None], "open"),
                Call::Receive(conn, ..) => (conn, &[Some(&"open")], "open"),
                Call::Close(conn) => (conn, &[Some(&"open")], "closed"),
                _ => continue,
            };
            assert!(before.contains(&stages.get(conn)), "{call:?} at the wrong time: {calls:?}");
            stages.insert(*conn, after);
        }
        assert_eq!(stages.len(), CLIENTS);
        assert!(stages.values().all(|stage| *stage == "closed"));
    }
}

#[test]
fn bytes_are_told_in_their_order_and_complete() {
    for world in worlds() {
        let (log, calls) = Log::new();
        let harness = world.backend(FakeBackend::by_hand()).events(log).start();
        let sent: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        block_on(async {
            let mut client = harness.client().await;
            let mut backend = harness.backend(0).accept().await;
            let sending = async {
                client.send(&sent).await;
                client.fin();
            };
            let (_, seen) = futures_lite::future::zip(sending, backend.recv_to_end()).await;
            assert_eq!((&seen.bytes, seen.ending), (&sent, Ending::Fin));
            backend.close();
            assert!(harness.ended().await.clean);
        });
        let mut told = Vec::new();
        for call in taken(&calls) {
            if let Call::Receive(_, Side::Client, bytes) = call {
                told.extend(bytes);
            }
        }
        assert!(told == sent, "{} bytes were told of {}", told.len(), sent.len());
    }
}

#[test]
fn the_timer_comes_again_and_again() {
    for world in worlds() {
        let (log, calls) = Log::new();
        let short = std::time::Duration::from_millis(1);
        let harness = world
            .backend(FakeBackend::echo())
            .with(|config| config.report = Some(short))
            .events(log)
            .start();
        block_on(async {
            let mut timers = 0;
            while timers < 3 {
                let call = calls.recv().await.expect("the proxy runs");
                timers += usize::from(call == Call::Timer);
            }
            harness.stop().await;
        });
    }
}

/// Panics in one callback.
#[derive(Clone, Copy)]
enum Faulty {
    Connect,
    Receive,
    Close,
}

/// The connection that meets the fault: the first.
const ILL: u64 = 1;

impl Events for Faulty {
    fn on_connect(&self, conn: ConnId, _client: &Endpoint) {
        assert!(!matches!(self, Faulty::Connect) || conn.number() != ILL, "on purpose");
    }

    fn on_receive(&self, conn: ConnId, _from: Side, _bytes: &[u8]) {
        assert!(!matches!(self, Faulty::Receive) || conn.number() != ILL, "on purpose");
    }

    fn on_close(&self, ended: &Ended) {
        assert!(!matches!(self, Faulty::Close) || ended.conn.number() != ILL, "on purpose");
    }
}

/// Two clients, of which the first meets the fault; gives how its connection ended.
async fn meet(harness: Harness) -> Ended {
    let mut ill = harness.client().await;
    // On a fault in on_connect it may be gone by now.
    let _ = ill.try_send(b"hello").await;
    let mut well = harness.client().await;
    well.send(b"hello").await;
    assert_eq!(well.recv_exact(5).await, b"hello");
    ill.fin();
    let heard = ill.recv_to_end().await;
    let ended = harness.ended().await;
    assert_eq!(ended.conn.number(), ILL);
    assert_eq!(ended.clean, heard.ending == Ending::Fin, "{heard:?}");
    well.send(b"again").await;
    assert_eq!(well.recv_exact(5).await, b"again");
    well.close();
    assert!(harness.ended().await.clean);
    harness.stop().await;
    ended
}

#[test]
fn a_callback_that_panics_aborts_its_connection_and_no_other() {
    for fault in [Faulty::Connect, Faulty::Receive] {
        for world in worlds() {
            let harness = world.backend(FakeBackend::echo()).events(fault).start();
            let ended = block_on(meet(harness));
            assert_eq!((ended.by, ended.clean), (By::Proxy, false));
            assert_eq!(ended.cause, "an actor panicked");
        }
    }
}

#[test]
fn an_on_close_that_panics_comes_too_late_to_do_harm() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::echo()).events(Faulty::Close).start();
        assert!(block_on(meet(harness)).clean);
    }
}
