//! Clients that share a trunk at the same time, and what becomes of requests whose trunk is lost.

use super::worlds;
use futures_lite::future::poll_once;
use std::time::Duration;
use trunkline::framing::{Framing, Line, Resp};
use trunkline::testing::{Ending, FakeBackend, Harness, HarnessBuilder, Peer, block_on};
use trunkline::{Answers, PoolConfig};

/// Before a backend by hand, with one shared trunk.
fn by_hand(world: HarnessBuilder, framing: impl Framing, config: PoolConfig) -> Harness {
    world.backend(FakeBackend::by_hand()).pool(framing, config).start()
}

async fn hears(peer: &mut Peer, text: &str) {
    let heard = peer.recv_exact(text.len()).await;
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn line(peer: &mut Peer) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(peer.recv_exact(1).await);
    }
    String::from_utf8_lossy(&line).into_owned()
}

#[test]
fn requests_of_many_are_in_flight_on_one_trunk_and_each_gets_its_own_reply() {
    for world in worlds() {
        let harness = by_hand(world, Line::default(), PoolConfig::mux());
        block_on(async {
            let mut clients = Vec::new();
            for number in 0..20 {
                let mut client = harness.client().await;
                client.send(format!("from {number:02}\n").as_bytes()).await;
                clients.push(client);
            }
            let mut trunk = harness.backend(0).accept().await;
            // All are there before the first is answered, in whatever order they came.
            let mut asked = Vec::new();
            for _ in 0..20 {
                asked.push(trunk.recv_exact(8).await);
            }
            for request in &asked {
                trunk.send(b"to ").await;
                trunk.send(&request[5..]).await;
            }
            for (number, client) in clients.iter_mut().enumerate() {
                hears(client, &format!("to {number:02}\n")).await;
            }
            assert_eq!(harness.backend(0).accepted(), 1);
        });
    }
}

#[test]
fn the_reply_of_a_client_that_has_left_is_read_for_nobody() {
    for world in worlds() {
        let harness = by_hand(world, Line::default(), PoolConfig::mux());
        block_on(async {
            let mut leaves = harness.client().await;
            leaves.send(b"first\n").await;
            let mut trunk = harness.backend(0).accept().await;
            hears(&mut trunk, "first\n").await;
            leaves.reset();
            harness.ended().await;
            let mut stays = harness.client().await;
            stays.send(b"second\n").await;
            hears(&mut trunk, "second\n").await;
            trunk.send(b"for the first\nfor the second\n").await;
            hears(&mut stays, "for the second\n").await;
            assert_eq!(harness.backend(0).accepted(), 1);
        });
    }
}

#[test]
fn a_client_that_does_not_read_stops_nobody_and_is_closed_when_too_much_waits() {
    let config = PoolConfig { reply_buffer: 100_000, credit: 4, ..PoolConfig::mux() };
    let world = Harness::builder().in_memory_holding(1000);
    let harness = by_hand(world, Resp::default(), config);
    block_on(async {
        let (mut stalls, mut reads) = (harness.client().await, harness.client().await);
        // It asks for all that it may await at once, and for more.
        for _ in 0..10 {
            stalls.send(b"GET big\r\n").await;
        }
        let mut trunk = harness.backend(0).accept().await;
        for _ in 0..4 {
            hears(&mut trunk, "GET big\r\n").await;
        }
        reads.send(b"GET small\r\n").await;
        hears(&mut trunk, "GET small\r\n").await;
        let body = "x".repeat(10_000);
        for _ in 0..4 {
            trunk.send(format!("$10000\r\n{body}\r\n").as_bytes()).await;
        }
        trunk.send(b"$5\r\nsmall\r\n").await;
        hears(&mut reads, "$5\r\nsmall\r\n").await;
        // Each that it takes makes room for one that it asked for; it takes none of these.
        for _ in 0..4 {
            stalls.recv_exact(10_010).await;
        }
        hears(&mut trunk, "GET big\r\n").await;
        let body = "x".repeat(200_000);
        trunk.send(format!("$200000\r\n{body}\r\n").as_bytes()).await;
        let ended = harness.ended().await;
        assert!(ended.cause.contains("too slowly"), "{ended:?}");
        reads.send(b"GET small\r\n").await;
        // Behind what the other one had asked for.
        let mut asked = Vec::new();
        while !asked.ends_with(b"GET small\r\n") {
            asked.extend(trunk.recv_exact(1).await);
        }
        drop(stalls);
    });
}

#[test]
fn a_request_that_is_lost_is_asked_again_if_that_does_no_harm() {
    for world in worlds() {
        let harness = by_hand(world, Resp::default(), PoolConfig::mux());
        block_on(async {
            let (mut reader, mut writer) = (harness.client().await, harness.client().await);
            reader.send(b"GET a\r\nGET b\r\n").await;
            let mut trunk = harness.backend(0).accept().await;
            hears(&mut trunk, "GET a\r\nGET b\r\n").await;
            writer.send(b"INCR c\r\nGET d\r\n").await;
            hears(&mut trunk, "INCR c\r\nGET d\r\n").await;
            trunk.send(b"+a\r\n").await;
            hears(&mut reader, "+a\r\n").await;
            trunk.reset();
            // Nobody can know whether it was counted.
            hears(&mut writer, "-ERR trunkline: the backend connection was lost\r\n").await;
            let mut trunk = harness.backend(0).accept().await;
            let mut asked = trunk.recv_exact(7).await;
            trunk.send(b"+one\r\n").await;
            asked.extend(trunk.recv_exact(7).await);
            trunk.send(b"+two\r\n").await;
            let (b, d) = if asked.starts_with(b"GET b") {
                (b"+one\r\n", b"+two\r\n")
            } else {
                (b"+two\r\n", b"+one\r\n")
            };
            assert_eq!(
                (reader.recv_exact(6).await, writer.recv_exact(6).await),
                (b.to_vec(), d.to_vec())
            );
            // Once only.
            reader.send(b"GET e\r\n").await;
            hears(&mut trunk, "GET e\r\n").await;
            trunk.reset();
            let mut trunk = harness.backend(0).accept().await;
            hears(&mut trunk, "GET e\r\n").await;
            trunk.reset();
            hears(&mut reader, "-ERR trunkline: the backend connection was lost\r\n").await;
            reader.fin();
            assert_eq!(reader.recv_to_end().await.ending, Ending::Fin);
            let ended = harness.ended().await;
            let answers = ended.answers.expect("requests are looked at");
            let Answers { requests, replies, errors, .. } = answers;
            assert_eq!((requests, replies, errors), (3, 2, 1));
        });
    }
}

#[test]
fn a_reply_that_does_not_come_costs_the_trunk_and_nobody_elses_reply() {
    for world in worlds() {
        let config =
            PoolConfig { reply_timeout: Some(Duration::from_millis(200)), ..PoolConfig::mux() };
        let harness = by_hand(world, Resp::default(), config);
        block_on(async {
            let (mut first, mut second) = (harness.client().await, harness.client().await);
            first.send(b"GET slow\r\n").await;
            let mut trunk = harness.backend(0).accept().await;
            hears(&mut trunk, "GET slow\r\n").await;
            second.send(b"GET quick\r\n").await;
            hears(&mut trunk, "GET quick\r\n").await;
            hears(&mut first, "-ERR trunkline: the backend did not reply in time\r\n").await;
            assert!(trunk.recv_to_end().await.ending.is_reset());
            let mut trunk = harness.backend(0).accept().await;
            hears(&mut trunk, "GET quick\r\n").await;
            trunk.send(b"+quick\r\n").await;
            hears(&mut second, "+quick\r\n").await;
        });
    }
}

#[test]
fn a_client_that_leaves_state_has_a_trunk_of_its_own_until_the_backend_has_forgotten_it() {
    for world in worlds() {
        let config = PoolConfig { trunks: 1, ..PoolConfig::mux() };
        let harness = by_hand(world, Resp::default(), config);
        block_on(async {
            let (mut pinned, mut other) = (harness.client().await, harness.client().await);
            other.send(b"GET x\r\n").await;
            let mut shared = harness.backend(0).accept().await;
            hears(&mut shared, "GET x\r\n").await;
            shared.send(b"+x\r\n").await;
            hears(&mut other, "+x\r\n").await;
            pinned.send(b"GET x\r\n").await;
            hears(&mut shared, "GET x\r\n").await;
            shared.send(b"+x\r\n").await;
            hears(&mut pinned, "+x\r\n").await;

            pinned.send(b"WATCH k\r\n").await;
            let mut own = harness.backend(0).accept().await;
            hears(&mut own, "WATCH k\r\n").await;
            own.send(b"+OK\r\n").await;
            hears(&mut pinned, "+OK\r\n").await;
            let listed = harness.handle().list().await;
            let reasons: Vec<_> = listed.iter().map(|listed| listed.pinned.as_deref()).collect();
            assert_eq!(reasons, [Some("WATCH, request 2"), None]);
            // The others go on meanwhile.
            other.send(b"GET y\r\n").await;
            hears(&mut shared, "GET y\r\n").await;
            shared.send(b"+y\r\n").await;
            hears(&mut other, "+y\r\n").await;

            pinned.send(b"UNWATCH\r\n").await;
            hears(&mut own, "UNWATCH\r\n").await;
            own.send(b"+OK\r\n").await;
            hears(&mut pinned, "+OK\r\n").await;
            hears(&mut own, "*1\r\n$5\r\nRESET\r\n").await;
            // Nobody gets it before it has said so.
            other.send(b"BLPOP k 0\r\n").await;
            hears(&mut harness.backend(0).accept().await, "BLPOP k 0\r\n").await;
            assert!(poll_once(own.recv()).await.is_none());
        });
    }
}

#[test]
fn no_more_clients_than_allowed_are_pinned() {
    let config = PoolConfig { max_pinned: 1, ..PoolConfig::mux() };
    let harness = Harness::builder().backend(FakeBackend::resp()).pool(Resp::default(), config);
    let harness = harness.start();
    block_on(async {
        let (mut first, mut second) = (harness.client().await, harness.client().await);
        first.send(b"MULTI\r\n").await;
        hears(&mut first, "+OK\r\n").await;
        second.send(b"MULTI\r\n").await;
        hears(
            &mut second,
            "-ERR trunkline: too many clients have a backend connection of their own\r\n",
        )
        .await;
        // What follows would mean something else without it.
        assert_eq!(second.recv_to_end().await.ending, Ending::Fin);
        first.send(b"DISCARD\r\n").await;
        hears(&mut first, "+OK\r\n").await;
        // It is not pinned any more, or will not be in a moment.
        loop {
            let mut third = harness.client().await;
            third.send(b"MULTI\r\n").await;
            if line(&mut third).await == "+OK\r\n" {
                break;
            }
        }
    });
}
