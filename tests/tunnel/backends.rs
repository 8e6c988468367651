//! Which backend gets a client, how it is reached, and what waits until it is.

use super::worlds;
use async_channel::Receiver;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use trunkline::testing::{Ending, FakeBackend, Harness, MemoryConnect, RunningBackend, block_on};
use trunkline::{Boxed, By, Config, Connect, Endpoint, Phase, Side, Socket};

#[test]
fn clients_are_spread_over_the_backends_in_turn() {
    for world in worlds() {
        let harness = world
            .backend(FakeBackend::babble("a"))
            .backend(FakeBackend::babble("b"))
            .backend(FakeBackend::babble("c"))
            .start();
        let mut answers = Vec::new();
        block_on(async {
            for _ in 0..6 {
                let mut client = harness.client().await;
                answers.extend(client.recv_exact(1).await);
                client.close();
            }
        });
        assert_eq!(answers, b"abcabc");
    }
}

#[test]
fn a_backend_that_refuses_costs_its_clients_nothing_but_the_next_is_named() {
    for world in worlds() {
        let harness =
            world.backend(FakeBackend::refuse()).backend(FakeBackend::babble("b")).start();
        block_on(async {
            for _ in 0..2 {
                let mut client = harness.client().await;
                assert_eq!(client.recv_exact(1).await, b"b");
                client.close();
                let ended = harness.ended().await;
                assert_eq!(ended.backend.as_ref(), Some(harness.backend(1).endpoint()));
                assert!(ended.clean, "{ended:?}");
            }
        });
    }
}

#[test]
fn when_all_refuse_the_cause_names_each() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::refuse()).backend(FakeBackend::refuse()).start();
        block_on(async {
            let mut client = harness.client().await;
            assert!(client.recv_to_end().await.ending.is_reset());
            let ended = harness.ended().await;
            for place in 0..2 {
                let part = format!("{}: connection refused", harness.backend(place).endpoint());
                assert!(ended.cause.contains(&part), "{ended:?}");
            }
        });
    }
}

/// Connects only once it is told to.
struct Late {
    way: MemoryConnect,
    told: Receiver<Infallible>,
}

impl Connect for Late {
    fn connect<'a>(&'a self, place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(async move {
            let _ = self.told.recv().await;
            self.way.connect(place).await
        })
    }
}

fn late() -> (Harness, trunkline::testing::RunningBackend, async_channel::Sender<Infallible>) {
    let backend = FakeBackend::by_hand().in_memory();
    let (tell, told) = async_channel::bounded(1);
    let endpoint = backend.endpoint().clone();
    let harness = Harness::builder()
        .over_sockets()
        .connect(Late { way: backend.connect(), told })
        .with(|config| {
            config.backends = vec![endpoint];
            config.connect_timeout = trunkline::testing::DEADLINE;
        })
        .start();
    (harness, backend, tell)
}

#[test]
fn what_a_client_says_before_its_backend_is_there_waits_in_order() {
    let (harness, backend, tell) = late();
    block_on(async {
        let mut client = harness.client().await;
        client.send(b"first, ").await;
        super::until(&harness, Phase::Connect).await;
        client.send(b"second, ").await;
        client.send(b"third").await;
        client.fin();
        tell.close();
        let mut peer = backend.accept().await;
        let heard = peer.recv_to_end().await;
        assert_eq!((&heard.bytes[..], heard.ending), (&b"first, second, third"[..], Ending::Fin));
        peer.send(b"answer").await;
        peer.close();
        let heard = client.recv_to_end().await;
        assert_eq!((&heard.bytes[..], heard.ending), (&b"answer"[..], Ending::Fin));
        assert!(harness.ended().await.clean);
    });
}

#[test]
fn a_client_that_gives_up_before_its_backend_is_there_ends_the_wait() {
    let (harness, backend, _tell) = late();
    block_on(async {
        let client = harness.client().await;
        super::until(&harness, Phase::Connect).await;
        client.reset();
        let ended = harness.ended().await;
        assert_eq!((ended.by, ended.phase), (By::Peer(Side::Client), Phase::Connect));
        assert_eq!((ended.clean, ended.backend), (false, None));
        assert_eq!(backend.accepted(), 0);
        assert_eq!(harness.stop().await.refused, 0);
    });
}

#[test]
fn a_backend_that_does_not_accept_in_time_is_named_with_that_cause() {
    let backend = FakeBackend::by_hand().in_memory();
    let (_tell, told) = async_channel::bounded(1);
    let endpoint = backend.endpoint().clone();
    let harness = Harness::builder()
        .connect(Late { way: backend.connect(), told })
        .with(|config| {
            config.backends = vec![endpoint];
            config.connect_timeout = std::time::Duration::from_millis(1);
        })
        .start();
    block_on(async {
        let mut client = harness.client().await;
        assert!(client.recv_to_end().await.ending.is_reset());
        let ended = harness.ended().await;
        assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::Connect));
        assert_eq!(ended.cause, "backend-1:1: timed out");
    });
}

/// A path for a unix socket, of this test alone; removed with its directory.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let directory = format!("trunkline-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).expect("a directory for the test");
        Place(directory)
    }

    fn socket(&self, name: &str) -> Endpoint {
        Endpoint::Unix(self.0.join(name))
    }

    /// A proxy that listens here, before that backend.
    fn harness(&self, backend: &RunningBackend) -> Harness {
        let set = |config: &mut Config| {
            config.listen = vec![self.socket("proxy")];
            config.backends = vec![backend.endpoint().clone()];
        };
        Harness::builder().with(set).start()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn unix_sockets_carry_both_sides_and_their_half_closes() {
    let place = Place::new("both");
    let backend = FakeBackend::echo().listen_at(place.socket("backend"));
    let harness = place.harness(&backend);
    block_on(async {
        let mut client = harness.client().await;
        client.send(b"hello").await;
        client.fin();
        let heard = client.recv_to_end().await;
        assert_eq!((&heard.bytes[..], heard.ending), (&b"hello"[..], Ending::Fin));
        let ended = harness.ended().await;
        assert!(ended.clean, "{ended:?}");
        assert_eq!(ended.client, place.socket("proxy"), "a unix client has no other name");
        assert_eq!(harness.stop().await.clean, 1);
    });
    assert!(!place.0.join("proxy").exists(), "the file goes with its listener");
}

#[test]
fn a_unix_path_where_nobody_listens_refuses() {
    let place = Place::new("nobody");
    let backend = FakeBackend::refuse().listen_at(place.socket("backend"));
    let harness = Harness::builder()
        .with(|config| config.backends = vec![backend.endpoint().clone()])
        .start();
    block_on(async {
        let mut client = harness.client().await;
        assert!(client.recv_to_end().await.ending.is_reset());
        let ended = harness.ended().await;
        assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::Connect));
    });
}

/// Linux resets a unix socket only when its owner leaves bytes unread, so the peers cannot be told; the log can.
#[test]
fn an_abort_over_unix_sockets_looks_like_an_end_to_the_peers_and_not_to_the_log() {
    let place = Place::new("abort");
    let backend = FakeBackend::by_hand().listen_at(place.socket("backend"));
    let harness = place.harness(&backend);
    block_on(async {
        let mut client = harness.client().await;
        let mut peer = backend.accept().await;
        let conn = super::until(&harness, Phase::Data).await;
        peer.send(b"half an ans").await;
        assert_eq!(client.recv_exact(11).await, b"half an ans");
        assert!(harness.handle().end(conn).await);
        assert_eq!(client.recv_to_end().await.ending, Ending::Fin);
        assert_eq!(peer.recv_to_end().await.ending, Ending::Fin);
        assert!(!harness.ended().await.clean);
    });
}
