//! How connections end when no peer ends them: by an order, a deadline, a stop.

use super::worlds;
use futures_lite::future::zip;
use std::time::{Duration, Instant};
use trunkline::testing::{
    DEADLINE, Ending, FakeBackend, FakeClient, Harness, HarnessBuilder, Peer, block_on,
};
use trunkline::{By, Config, ConnId, Listed, Phase};

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(3600);

/// A connection over which something was said both ways.
async fn open(harness: &Harness) -> (Peer, Peer, ConnId) {
    let mut client = harness.client().await;
    let mut backend = harness.backend(0).accept().await;
    client.send(b"ping").await;
    assert_eq!(backend.recv_exact(4).await, b"ping");
    backend.send(b"pong").await;
    assert_eq!(client.recv_exact(4).await, b"pong");
    let list = harness.handle().list().await;
    (client, backend, list.last().expect("it is listed").conn)
}

fn start(world: HarnessBuilder, change: impl FnOnce(&mut Config)) -> Harness {
    world.backend(FakeBackend::by_hand()).with(change).start()
}

/// The list, once this is true of all that are in it.
async fn listed(harness: &Harness, wanted: impl Fn(&Listed) -> bool) -> Vec<Listed> {
    let start = Instant::now();
    loop {
        let list = harness.handle().list().await;
        if list.iter().all(&wanted) {
            return list;
        }
        assert!(start.elapsed() < DEADLINE, "the list stays {list:?}");
    }
}

/// Both peers of an aborted connection see a reset.
async fn both_are_reset(mut client: Peer, mut backend: Peer) {
    assert!(client.recv_to_end().await.ending.is_reset());
    assert!(backend.recv_to_end().await.ending.is_reset());
}

#[test]
fn connections_are_listed_oldest_first_with_what_they_carried() {
    for world in worlds() {
        let harness = start(world, |_| {});
        block_on(async {
            let (_client, _backend, first) = open(&harness).await;
            let (_client, _backend, second) = open(&harness).await;
            // A writer counts bytes when the system has taken them, so the backend may have them a moment before.
            let list = listed(&harness, |one| one.to_backend == 4 && one.to_client == 4).await;
            assert_eq!(list.iter().map(|one| one.conn).collect::<Vec<_>>(), [first, second]);
            for one in list {
                assert_eq!(one.phase, Phase::Data);
                assert!(one.idle <= one.age);
            }
            let report = harness.handle().report().await.expect("the proxy runs");
            assert_eq!((report.open, report.accepted), (2, 2));
        });
    }
}

#[test]
fn an_order_ends_the_named_connection_and_no_other() {
    for world in worlds() {
        let harness = start(world, |_| {});
        block_on(async {
            let (client, backend, conn) = open(&harness).await;
            let (mut other, mut its_backend, _) = open(&harness).await;
            assert!(harness.handle().end(conn).await);
            both_are_reset(client, backend).await;
            let ended = harness.ended().await;
            assert_eq!((ended.conn, ended.by, ended.phase), (conn, By::Proxy, Phase::Data));
            assert_eq!((ended.clean, &ended.cause[..]), (false, "ended by order"));
            other.send(b"still here").await;
            assert_eq!(its_backend.recv_exact(10).await, b"still here");
            assert!(!harness.handle().end(ConnId::from(999)).await);
        });
    }
}

#[test]
fn an_idle_connection_is_ended_and_says_so() {
    for world in worlds() {
        let harness = start(world, |config| {
            (config.tick, config.idle_timeout, config.half_close_timeout) = (SHORT, SHORT, LONG);
        });
        block_on(async {
            let mut client = harness.client().await;
            let backend = harness.backend(0).accept().await;
            assert!(client.recv_to_end().await.ending.is_reset());
            drop(backend);
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Timeout, Phase::Data));
            assert_eq!((ended.clean, &ended.cause[..]), (false, "idle for too long"));
        });
    }
}

#[test]
fn a_half_closed_connection_has_a_deadline_of_its_own() {
    for world in worlds() {
        let harness = start(world, |config| {
            (config.tick, config.idle_timeout, config.half_close_timeout) = (SHORT, LONG, SHORT);
        });
        block_on(async {
            let (mut client, mut backend, _) = open(&harness).await;
            client.fin();
            assert_eq!(backend.recv().await, None);
            assert!(client.recv_to_end().await.ending.is_reset());
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Timeout, Phase::HalfClosed));
            assert_eq!((ended.clean, &ended.cause[..]), (false, "half-closed for too long"));
        });
    }
}

#[test]
fn a_drain_lets_connections_finish() {
    for world in worlds() {
        let harness = start(world, |config| config.drain_timeout = LONG);
        block_on(async {
            let (mut client, mut backend, _) = open(&harness).await;
            let talking = async {
                client.send(b"one more thing").await;
                assert_eq!(backend.recv_exact(14).await, b"one more thing");
                backend.send(b"fine").await;
                assert_eq!(client.recv_exact(4).await, b"fine");
                client.fin();
                assert_eq!(backend.recv().await, None);
                backend.fin();
                assert_eq!(client.recv().await, None);
            };
            let (report, ()) = zip(harness.stop(), talking).await;
            assert_eq!((report.open, report.clean, report.aborted), (0, 1, 0));
            assert_eq!((report.to_backend, report.to_client), (18, 8));
        });
    }
}

#[test]
fn while_the_proxy_drains_new_clients_are_refused() {
    let harness = start(Harness::builder().over_sockets(), |config| config.drain_timeout = LONG);
    let address = harness.address();
    block_on(async {
        let (mut client, mut backend, _) = open(&harness).await;
        let refused = async {
            // Until the listener is closed, a client may still get in: that one is carried too.
            let mut late = Vec::new();
            while let Ok(peer) = FakeClient::try_connect(address).await {
                late.push(peer);
            }
            drop(late);
            client.send(b"still here").await;
            assert_eq!(backend.recv_exact(10).await, b"still here");
            client.close();
            backend.close();
        };
        let (report, ()) = zip(harness.stop(), refused).await;
        assert_eq!((report.open, report.clean), (0, 1));
    });
}

#[test]
fn a_drain_that_lasts_too_long_ends_in_resets() {
    for world in worlds() {
        let harness = start(world, |config| config.drain_timeout = SHORT);
        block_on(async {
            let (client, backend, conn) = open(&harness).await;
            let (report, ()) = zip(harness.stop(), both_are_reset(client, backend)).await;
            assert_eq!((report.open, report.clean, report.aborted), (0, 0, 1));
            let ended = harness.ended().await;
            assert_eq!((ended.conn, ended.by, ended.phase), (conn, By::Timeout, Phase::Drain));
            assert_eq!(ended.cause, "not finished within the drain timeout");
        });
    }
}

#[test]
fn an_abort_ends_the_drain_at_once() {
    for world in worlds() {
        let harness = start(world, |config| config.drain_timeout = LONG);
        block_on(async {
            let (client, backend, _) = open(&harness).await;
            let handle = harness.handle();
            let aborting = async {
                handle.abort().await;
                both_are_reset(client, backend).await;
            };
            let (report, ()) = zip(harness.stop(), aborting).await;
            assert_eq!((report.open, report.aborted), (0, 1));
            assert_eq!(handle.list().await, []);
            assert_eq!(handle.report().await, None);
            assert!(!handle.end(ConnId::from(1)).await);
        });
    }
}

#[test]
fn dropping_the_proxy_resets_everybody() {
    for world in worlds() {
        let harness = start(world, |_| {});
        block_on(async {
            let (client, backend, _) = open(&harness).await;
            drop(harness);
            both_are_reset(client, backend).await;
        });
    }
}

#[test]
fn clients_that_the_system_had_accepted_when_the_stop_came_are_served() {
    for world in worlds() {
        let harness = start(world, |config| config.drain_timeout = LONG);
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"hello").await;
            client.fin();
            // Whether or not the listener has seen it yet.
            let serving = async {
                let mut peer = harness.backend(0).accept().await;
                assert_eq!(peer.recv_to_end().await.ending, Ending::Fin);
                peer.close();
            };
            let (report, ()) = zip(harness.stop(), serving).await;
            assert_eq!(client.recv_to_end().await.ending, Ending::Fin);
            assert_eq!((report.accepted, report.clean), (1, 1));
        });
    }
}
