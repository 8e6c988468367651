//! Clients that share trunks to a backend whose replies go wrong: each costs its own client, and no other.
//!
//! What nobody can see in a protocol without numbers is not here. Two replies that have changed places are one; a reply
//! that is lost, or comes twice, while others are in flight behind it on the same trunk is another: so those two are tried
//! with one request in flight.

use super::worlds;
use futures_lite::future::poll_once;
use std::time::Duration;
use trunkline::PoolConfig;
use trunkline::framing::{Framing, Resp};
use trunkline::testing::serve::{ReplyFault, Serve};
use trunkline::testing::{FakeBackend, Harness, HarnessBuilder, Peer, block_on};

/// Before this fake.
fn before(
    world: HarnessBuilder,
    serve: Serve,
    framing: impl Framing,
    config: PoolConfig,
) -> Harness {
    world.backend(FakeBackend::new(serve)).pool(framing, config).start()
}

fn leased(trunks: usize) -> PoolConfig {
    PoolConfig { trunks, ..PoolConfig::default() }
}

/// One trunk: leased, or shared.
fn one_trunk() -> [PoolConfig; 2] {
    [leased(1), PoolConfig::mux()]
}

async fn asks(client: &mut Peer, request: &str, reply: &str) {
    client.send(request.as_bytes()).await;
    let heard = client.recv_exact(reply.len()).await;
    assert_eq!(String::from_utf8_lossy(&heard), reply, "to {request:?}");
}

/// Sets the key of each of these clients to its number.
async fn sets_its_own(clients: &mut [Peer]) {
    for (number, client) in clients.iter_mut().enumerate() {
        asks(client, &format!("SET key{number} {number}\r\n"), "+OK\r\n").await;
    }
}

/// Each still gets its own.
async fn gets_its_own(clients: &mut [Peer]) {
    for (number, client) in clients.iter_mut().enumerate() {
        asks(client, &format!("GET key{number}\r\n"), &format!("$1\r\n{number}\r\n")).await;
    }
}

#[test]
fn a_reply_that_comes_twice_costs_the_trunk_and_reaches_nobody_else() {
    for config in one_trunk() {
        for world in worlds() {
            let serve = Serve::resp().on_every_reply(2, ReplyFault::Duplicate);
            let harness = before(world, serve, Resp::default(), config);
            block_on(async {
                let mut clients = [harness.client().await, harness.client().await];
                sets_its_own(&mut clients).await;
                for _ in 0..5 {
                    gets_its_own(&mut clients).await;
                }
                // Twelve replies, and every second one took its trunk with it.
                assert_eq!(harness.backend(0).accepted(), 6);
            });
        }
    }
}

#[test]
fn a_reply_that_stops_in_its_header_arrives_as_the_same_bytes() {
    for after in [1, 2, 3, 4] {
        for config in one_trunk() {
            for world in worlds() {
                let split = ReplyFault::Split { after, pause: Duration::from_millis(1) };
                let serve = Serve::resp().on_every_reply(1, split);
                let harness = before(world, serve, Resp::default(), config);
                block_on(async {
                    let mut clients = [harness.client().await, harness.client().await];
                    sets_its_own(&mut clients).await;
                    gets_its_own(&mut clients).await;
                    assert_eq!(harness.backend(0).accepted(), 1);
                });
            }
        }
    }
}

#[test]
fn a_reply_that_breaks_off_costs_its_client_and_is_not_asked_for_again() {
    for fault in [0, 1, 2, 3]
        .map(|after| ReplyFault::Cut { after })
        .into_iter()
        .chain([ReplyFault::Reset { after: 0 }, ReplyFault::Reset { after: 2 }])
    {
        for config in one_trunk() {
            for world in worlds() {
                // The third reply of the trunk is that to INCR.
                let serve = Serve::resp().on_reply(3, fault.clone());
                let harness = before(world, serve, Resp::default(), config);
                block_on(async {
                    let mut clients = [harness.client().await, harness.client().await];
                    sets_its_own(&mut clients).await;
                    let [first, second] = &mut clients;
                    first.send(b"INCR key0\r\n").await;
                    first.fin();
                    // Told in the words of the protocol, or cut off: never half a reply that looks like a whole one.
                    let seen = first.recv_to_end().await;
                    let told = seen.bytes.starts_with(b"-ERR trunkline: ");
                    assert!(told || seen.ending.is_reset(), "{fault}: {seen:?}");
                    asks(second, "GET key1\r\n", "$1\r\n1\r\n").await;
                    asks(second, "GET key0\r\n", "$1\r\n1\r\n").await;
                });
            }
        }
    }
}

#[test]
fn who_gets_no_reply_waits_alone() {
    for world in worlds() {
        let (told, come) = async_channel::bounded(1);
        let server = move |request: &[u8]| {
            if request.starts_with(b"INCR") {
                told.try_send(()).expect("it comes once");
            }
            b"+OK\r\n".to_vec()
        };
        let serve = Serve::new(Resp::default(), server).on_reply(2, ReplyFault::Drop);
        let config = PoolConfig { reply_timeout: None, ..leased(2) };
        let harness = before(world, serve, Resp::default(), config);
        block_on(async {
            let mut waits = harness.client().await;
            asks(&mut waits, "SET a 1\r\n", "+OK\r\n").await;
            waits.send(b"INCR a\r\n").await;
            come.recv().await.expect("the server lives");
            let mut other = harness.client().await;
            asks(&mut other, "SET b 1\r\n", "+OK\r\n").await;
            assert!(poll_once(waits.recv()).await.is_none(), "its reply was dropped");
        });
    }
}

#[test]
fn who_gets_no_reply_in_time_is_told_and_the_next_has_its_own() {
    for world in worlds() {
        let serve = Serve::resp().on_reply(3, ReplyFault::Drop);
        let reply_timeout = Some(Duration::from_millis(300));
        let config = PoolConfig { reply_timeout, ..leased(1) };
        let harness = before(world, serve, Resp::default(), config);
        block_on(async {
            let mut clients = [harness.client().await, harness.client().await];
            sets_its_own(&mut clients).await;
            let late = "-ERR trunkline: the backend did not reply in time\r\n";
            asks(&mut clients[0], "INCR key0\r\n", late).await;
            asks(&mut clients[1], "GET key1\r\n", "$1\r\n1\r\n").await;
            asks(&mut clients[1], "GET key0\r\n", "$1\r\n1\r\n").await;
        });
    }
}

#[test]
fn a_request_that_is_refused_before_its_body_has_come_costs_no_other_client() {
    for world in worlds() {
        let serve = Serve::resp().on_reply(3, ReplyFault::Error);
        // A long request does not share a trunk.
        let harness = before(world, serve, Resp::default(), leased(1));
        block_on(async {
            let mut clients = [harness.client().await, harness.client().await];
            sets_its_own(&mut clients).await;
            let [first, second] = &mut clients;
            let (length, begins) = (100_000, 20_000);
            let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nkey0\r\n${length}\r\n");
            let error = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
            asks(first, &(head + &"x".repeat(begins)), error).await;
            // The rest is nobody's request.
            first.send(&vec![b'x'; length - begins]).await;
            first.send(b"\r\n").await;
            asks(first, "GET key0\r\n", "$1\r\n0\r\n").await;
            asks(second, "GET key1\r\n", "$1\r\n1\r\n").await;
        });
    }
}

#[cfg(feature = "http")]
#[test]
fn an_http_request_that_is_refused_before_its_body_has_come_costs_no_other_client() {
    use trunkline::framing::Http;

    for expect in ["", "Expect: 100-continue\r\n"] {
        for world in worlds() {
            let serve = Serve::http().on_reply(2, ReplyFault::Error);
            let harness = before(world, serve, Http::default(), leased(1));
            block_on(async {
                let (mut first, mut second) = (harness.client().await, harness.client().await);
                let put = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none";
                let created = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
                asks(&mut second, put, created).await;
                let length = 100_000;
                let head = format!("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n");
                first.send(format!("{head}{expect}\r\n").as_bytes()).await;
                let status = "HTTP/1.1 413 Content Too Large";
                assert_eq!(first.recv_exact(status.len()).await, status.as_bytes(), "{expect}");
                if expect.is_empty() {
                    // The rest is nobody's request.
                    first.send(&vec![b'x'; length]).await;
                } else {
                    // Nobody knows whether it will come (RFC 9110, 10.1.1).
                    first.recv_to_end().await;
                }
                let get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
                asks(&mut second, get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await;
            });
        }
    }
}
