//! Clients that share trunks.

use super::worlds;
use std::time::Duration;
use trunkline::PoolConfig;
use trunkline::framing::Line;
use trunkline::testing::{Ending, FakeBackend, Harness, Peer, block_on};

fn trunks(trunks: usize) -> PoolConfig {
    PoolConfig { trunks, ..PoolConfig::default() }
}

async fn asks(client: &mut Peer, text: &str) {
    client.send(text.as_bytes()).await;
    assert_eq!(client.recv_exact(text.len()).await, text.as_bytes());
}

#[test]
fn many_clients_share_few_trunks_and_each_gets_its_own_replies() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::echo()).pool(Line::default(), trunks(2)).start();
        block_on(async {
            let mut clients = Vec::new();
            for _ in 0..20 {
                clients.push(harness.client().await);
            }
            for round in 0..10 {
                for (number, client) in clients.iter_mut().enumerate() {
                    asks(client, &format!("client {number} round {round}\n")).await;
                }
            }
            // A trunk comes back only behind its reply, so that the next request may be there before it.
            assert!(harness.backend(0).accepted() <= 2);
            for mut client in clients {
                client.fin();
                assert_eq!(client.recv_to_end().await.ending, Ending::Fin);
            }
            let report = harness.stop().await;
            assert_eq!((report.clean, report.aborted), (20, 0));
        });
    }
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::echo()).pool(Line::default(), trunks(3)).start();
        block_on(async {
            let mut clients = [harness.client().await, harness.client().await];
            let text = |client: usize| -> String {
                (0..100).map(|number| format!("client {client} request {number}\n")).collect()
            };
            for (number, client) in clients.iter_mut().enumerate() {
                client.send(text(number).as_bytes()).await;
                client.fin();
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let seen = client.recv_to_end().await;
                assert_eq!(String::from_utf8(seen.bytes).expect("text"), text(number));
                assert_eq!(seen.ending, Ending::Fin);
            }
        });
    }
}

#[test]
fn who_waits_for_a_trunk_gets_it_when_the_other_has_its_reply() {
    for world in worlds() {
        let harness =
            world.backend(FakeBackend::by_hand()).pool(Line::default(), trunks(1)).start();
        block_on(async {
            let (mut first, mut second) = (harness.client().await, harness.client().await);
            first.send(b"first\n").await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(6).await, b"first\n");
            second.send(b"second\n").await;
            trunk.send(b"for the first\n").await;
            assert_eq!(first.recv_exact(14).await, b"for the first\n");
            assert_eq!(trunk.recv_exact(7).await, b"second\n");
            trunk.send(b"for the second\n").await;
            assert_eq!(second.recv_exact(15).await, b"for the second\n");
            assert_eq!(harness.backend(0).accepted(), 1);
        });
    }
}

#[test]
fn a_trunk_that_is_lost_costs_its_client_and_no_other() {
    for world in worlds() {
        let harness =
            world.backend(FakeBackend::by_hand()).pool(Line::default(), trunks(1)).start();
        block_on(async {
            let (mut first, mut second) = (harness.client().await, harness.client().await);
            first.send(b"first\n").await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(6).await, b"first\n");
            second.send(b"second\n").await;
            trunk.send(b"half of a rep").await;
            trunk.reset();
            // Lines have no way to tell of it but to break off.
            assert!(first.recv_to_end().await.ending.is_reset());
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(7).await, b"second\n");
            trunk.send(b"yes\n").await;
            assert_eq!(second.recv_exact(4).await, b"yes\n");
            let ended = harness.ended().await;
            assert_eq!((ended.clean, ended.cause.as_str()), (false, "a reply was lost"));
        });
    }
}

#[test]
fn a_client_that_leaves_without_its_reply_takes_the_trunk_with_it() {
    for world in worlds() {
        let harness =
            world.backend(FakeBackend::by_hand()).pool(Line::default(), trunks(1)).start();
        block_on(async {
            let mut first = harness.client().await;
            first.send(b"first\n").await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(6).await, b"first\n");
            first.reset();
            assert!(trunk.recv_to_end().await.ending.is_reset());
            let mut second = harness.client().await;
            second.send(b"second\n").await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(7).await, b"second\n");
            trunk.send(b"for the second\n").await;
            assert_eq!(second.recv_exact(15).await, b"for the second\n");
        });
    }
}

#[test]
fn bytes_that_nobody_asked_for_cost_the_trunk_and_reach_nobody() {
    for world in worlds() {
        let harness =
            world.backend(FakeBackend::by_hand()).pool(Line::default(), trunks(1)).start();
        block_on(async {
            let mut first = harness.client().await;
            first.send(b"first\n").await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(6).await, b"first\n");
            trunk.send(b"one\ntwo\n").await;
            assert_eq!(first.recv_exact(4).await, b"one\n");
            assert!(trunk.recv_to_end().await.ending.is_reset());
            first.send(b"again\n").await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(6).await, b"again\n");
            trunk.send(b"yes\n").await;
            assert_eq!(first.recv_exact(4).await, b"yes\n");
        });
    }
}

#[test]
fn without_a_backend_or_a_free_trunk_in_time_the_client_is_told_by_the_end() {
    block_on(async {
        let harness = Harness::builder()
            .backend(FakeBackend::refuse())
            .pool(Line::default(), trunks(1))
            .start();
        let mut client = harness.client().await;
        client.send(b"hello\n").await;
        assert!(client.recv_to_end().await.ending.is_reset());
        assert_eq!(harness.ended().await.cause, "no backend accepts");

        let config = PoolConfig { queue_timeout: Duration::from_millis(10), ..trunks(1) };
        let harness = Harness::builder()
            .backend(FakeBackend::by_hand())
            .pool(Line::default(), config)
            .start();
        let (mut first, mut second) = (harness.client().await, harness.client().await);
        first.send(b"first\n").await;
        let _trunk = harness.backend(0).accept().await;
        second.send(b"second\n").await;
        assert!(second.recv_to_end().await.ending.is_reset());
        assert_eq!(harness.ended().await.cause, "no backend connection became free in time");
    });
}
