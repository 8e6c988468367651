//! Clients that share trunks.

use super::worlds;
use std::time::Duration;
use trunkline::PoolConfig;
#[cfg(feature = "http")]
use trunkline::framing::Http;
use trunkline::framing::{Line, Resp};
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
            // By the client_reader, which gives it to nobody, or by the backend_reader, which does not understand it.
            assert_ne!(trunk.recv_to_end().await.ending, Ending::Open);
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

        let config = PoolConfig { queue_timeout: Duration::from_millis(500), ..trunks(1) };
        let harness = Harness::builder()
            .backend(FakeBackend::by_hand())
            .pool(Line::default(), config)
            .start();
        let (mut first, mut second) = (harness.client().await, harness.client().await);
        first.send(b"first\n").await;
        let mut trunk = harness.backend(0).accept().await;
        assert_eq!(trunk.recv_exact(6).await, b"first\n");
        second.send(b"second\n").await;
        assert!(second.recv_to_end().await.ending.is_reset());
        assert_eq!(harness.ended().await.cause, "no backend connection became free in time");
    });
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// One trunk, at whose end the test sits.
fn one_trunk(framing: impl trunkline::framing::Framing) -> Harness {
    Harness::builder().backend(FakeBackend::by_hand()).pool(framing, trunks(1)).start()
}

/// Receives up to the end of a head.
async fn head(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.extend(peer.recv_exact(1).await);
    }
    bytes
}

#[cfg(feature = "http")]
#[test]
fn a_trunk_that_answers_half_of_a_request_gets_the_rest_and_serves_nobody_behind_it() {
    let harness = one_trunk(Http::default());
    block_on(async {
        let mut first = harness.client().await;
        first.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        first.send(&[b'x'; 20_000]).await;
        let mut trunk = harness.backend(0).accept().await;
        head(&mut trunk).await;
        trunk.recv_exact(20_000).await;
        trunk.send(EMPTY).await;
        assert_eq!(first.recv_exact(EMPTY.len()).await, EMPTY);
        // Only the backend knows what it takes this for.
        first.send(&[b'x'; 80_000]).await;
        first.send(GET).await;
        assert_eq!(trunk.recv_to_end().await.bytes.len(), 80_000);
        trunk.fin();
        let mut trunk = harness.backend(0).accept().await;
        assert_eq!(head(&mut trunk).await, GET);
        trunk.send(EMPTY).await;
        assert_eq!(first.recv_exact(EMPTY.len()).await, EMPTY);
    });
}

#[cfg(feature = "http")]
#[test]
fn a_body_that_turns_out_to_be_broken_is_answered_in_its_turn() {
    let harness = one_trunk(Http::default());
    block_on(async {
        let mut client = harness.client().await;
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send(b"5\r\nhello\r\n").await;
        let mut trunk = harness.backend(0).accept().await;
        head(&mut trunk).await;
        trunk.recv_exact(10).await;
        client.send(b"nonsense\r\n").await;
        assert!(trunk.recv_to_end().await.ending.is_reset());
        let seen = client.recv_to_end().await;
        assert!(seen.bytes.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{seen:?}");
        assert_eq!(seen.ending, Ending::Fin);
    });
}

#[cfg(feature = "http")]
#[test]
fn a_client_that_ends_in_the_middle_of_a_request_holds_no_trunk() {
    let harness = one_trunk(Http::default());
    block_on(async {
        let mut first = harness.client().await;
        first.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        first.send(&[b'x'; 20_000]).await;
        let mut trunk = harness.backend(0).accept().await;
        head(&mut trunk).await;
        trunk.recv_exact(20_000).await;
        first.fin();
        assert!(trunk.recv_to_end().await.ending.is_reset());
        assert!(first.recv_to_end().await.ending.is_reset());
    });
}

#[cfg(feature = "http")]
#[test]
fn no_error_is_written_into_a_reply_that_broke_off() {
    let harness = one_trunk(Http::default());
    block_on(async {
        let mut client = harness.client().await;
        client.send(&[GET, GET].concat()).await;
        let mut trunk = harness.backend(0).accept().await;
        head(&mut trunk).await;
        head(&mut trunk).await;
        trunk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n").await;
        trunk.send(&[b'y'; 39_980]).await;
        head(&mut client).await;
        client.recv_exact(39_980).await;
        trunk.reset();
        let seen = client.recv_to_end().await;
        assert_eq!((seen.bytes.len(), seen.ending.is_reset()), (0, true), "{seen:?}");
    });
}

#[cfg(feature = "http")]
#[test]
fn a_trunk_that_ends_with_its_reply_serves_nobody_else() {
    let harness = Harness::builder()
        .backend(FakeBackend::script(
            "expect \"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"\nsend \"HTTP/1.1 200 OK\\r\\n\\r\\nbody\"\nclose",
        ))
        .pool(Http::default(), trunks(1))
        .start();
    block_on(async {
        for _ in 0..100 {
            let (mut first, mut second) = (harness.client().await, harness.client().await);
            first.send(GET).await;
            second.send(GET).await;
            for client in [&mut first, &mut second] {
                let seen = client.recv_to_end().await;
                assert!(seen.bytes.starts_with(b"HTTP/1.1 200 OK"), "{seen:?}");
                assert!(seen.bytes.ends_with(b"body") && seen.ending == Ending::Fin, "{seen:?}");
            }
        }
    });
}

#[test]
fn an_idle_client_has_no_trunk_whatever_it_asked_last() {
    for (request, reply) in [(&b"BLPOP k 0\r\n"[..], &b"*-1\r\n"[..]), (b"GET k\r\n", b"$-1\r\n")] {
        let harness = one_trunk(Resp::default());
        block_on(async {
            let mut first = harness.client().await;
            first.send(request).await;
            let mut trunk = harness.backend(0).accept().await;
            assert_eq!(trunk.recv_exact(request.len()).await, request);
            trunk.send(reply).await;
            assert_eq!(first.recv_exact(reply.len()).await, reply);
            // Answered here, and no trunk is kept for it.
            first.send(b"RESET\r\n").await;
            assert_eq!(first.recv_exact(8).await, b"+RESET\r\n");
            let mut second = harness.client().await;
            second.send(b"GET x\r\n").await;
            assert_eq!(trunk.recv_exact(7).await, b"GET x\r\n");
        });
    }
}

#[test]
fn a_pinned_client_whose_trunk_is_lost_is_cut_off_and_goes_on_nowhere_else() {
    for command in ["SELECT 3\r\n", "MULTI\r\n"] {
        let harness = one_trunk(Resp::default());
        block_on(async {
            let mut client = harness.client().await;
            client.send(command.as_bytes()).await;
            let mut trunk = harness.backend(0).accept().await;
            trunk.recv_exact(command.len()).await;
            trunk.send(b"+OK\r\n").await;
            assert_eq!(client.recv_exact(5).await, b"+OK\r\n");
            trunk.close();
            assert!(client.recv_to_end().await.ending.is_reset());
            let cause = harness.ended().await.cause;
            assert_eq!(cause, "the trunk it was pinned to was lost");
        });
    }
}

#[test]
fn a_client_that_is_lost_while_it_waits_for_a_reply_gives_up_its_trunk() {
    let harness = one_trunk(Resp::default());
    block_on(async {
        let mut client = harness.client().await;
        client.send(b"BLPOP k 0\r\n").await;
        let mut trunk = harness.backend(0).accept().await;
        trunk.recv_exact(11).await;
        client.reset();
        assert!(trunk.recv_to_end().await.ending.is_reset());
    });
}

#[test]
fn a_proxy_that_stops_lets_idle_clients_go_and_finishes_what_is_owed() {
    for world in worlds() {
        let harness =
            world.backend(FakeBackend::by_hand()).pool(Resp::default(), trunks(2)).start();
        block_on(async {
            let (mut idle, mut waiting) = (harness.client().await, harness.client().await);
            waiting.send(b"GET x\r\n").await;
            let mut trunk = harness.backend(0).accept().await;
            trunk.recv_exact(7).await;
            let stop = harness.stop();
            assert_eq!(idle.recv_to_end().await.ending, Ending::Fin);
            trunk.send(b"$-1\r\n").await;
            let seen = waiting.recv_to_end().await;
            assert_eq!((seen.bytes.as_slice(), seen.ending), (&b"$-1\r\n"[..], Ending::Fin));
            assert_eq!(stop.await.clean, 2);
        });
    }
}

#[test]
fn backends_that_accept_and_close_cost_the_pool_nothing() {
    let harness =
        Harness::builder().backend(FakeBackend::cut(0)).pool(Resp::default(), trunks(4)).start();
    block_on(async {
        let mut clients = Vec::new();
        for _ in 0..200 {
            let mut client = harness.client().await;
            client.send(b"GET x\r\n").await;
            clients.push(client);
        }
        for client in &mut clients {
            let said = client.recv_exact(4).await;
            assert_eq!(said, b"-ERR");
        }
    });
}

#[test]
fn what_follows_a_transaction_that_found_no_trunk_is_not_carried_out() {
    for world in worlds() {
        let config = PoolConfig { queue_timeout: Duration::from_millis(200), ..trunks(1) };
        let harness = world.backend(FakeBackend::by_hand()).pool(Resp::default(), config).start();
        block_on(async {
            let (mut first, mut second) = (harness.client().await, harness.client().await);
            first.send(b"GET x\r\n").await;
            let mut trunk = harness.backend(0).accept().await;
            trunk.recv_exact(7).await;
            second.send(b"MULTI\r\nINCR x\r\nEXEC\r\n").await;
            let seen = second.recv_to_end().await;
            let error = "-ERR trunkline: no backend connection became free in time\r\n";
            assert_eq!(
                (String::from_utf8_lossy(&seen.bytes).as_ref(), seen.ending),
                (error, Ending::Fin)
            );
            trunk.send(b"$-1\r\n").await;
            first.recv_exact(5).await;
            first.send(b"GET y\r\n").await;
            assert_eq!(trunk.recv_exact(7).await, b"GET y\r\n");
        });
    }
}

#[test]
fn trunks_that_nobody_uses_end_cleanly_when_the_proxy_stops() {
    for config in [trunks(1), PoolConfig::mux()] {
        for world in worlds() {
            let harness =
                world.backend(FakeBackend::by_hand()).pool(Resp::default(), config).start();
            block_on(async {
                let mut client = harness.client().await;
                client.send(b"GET x\r\n").await;
                let mut trunk = harness.backend(0).accept().await;
                trunk.recv_exact(7).await;
                trunk.send(b"$-1\r\n").await;
                client.recv_exact(5).await;
                client.fin();
                client.recv_to_end().await;
                let stop = harness.stop();
                let seen = trunk.recv_to_end().await;
                assert_eq!((seen.bytes.len(), seen.ending), (0, Ending::Fin));
                drop(trunk);
                stop.await;
            });
        }
    }
}
