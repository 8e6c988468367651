//! Toxics on real sockets: put in, changed and taken out while connections live.

use std::net::SocketAddr;
use std::time::Duration;
use trunkline::testing::faults::{Changes, Fault, Faults, New, Refused, Toxic};
use trunkline::testing::{Ending, FakeBackend, FakeClient, Peer, RunningBackend, block_on};
use trunkline::{Endpoint, Side};

const FOR_EVER: Duration = Duration::from_secs(3600);
const RESET: Fault = Fault::ResetPeer { timeout: Duration::ZERO };
const BLACK_HOLE: Fault = Fault::Timeout { timeout: Duration::ZERO };

fn local() -> Endpoint {
    SocketAddr::from(([127, 0, 0, 1], 0)).into()
}

fn slow(latency: Duration) -> Toxic {
    Toxic::new(Fault::Latency { latency, jitter: Duration::ZERO })
}

/// A proxy named `echo` before a backend that sends back what comes.
async fn echo(seed: u64) -> (Faults, RunningBackend, Endpoint) {
    let backend = FakeBackend::echo().listen();
    let faults = Faults::start(seed);
    let proxy = faults.proxy("echo", backend.address()).await.expect("a free port");
    (faults, backend, proxy.listen)
}

async fn talks(client: &mut Peer) {
    client.send(b"hello").await;
    assert_eq!(client.recv_exact(5).await, b"hello");
}

#[test]
fn a_toxic_is_put_in_and_taken_out_while_bytes_are_on_their_way_and_none_is_lost() {
    block_on(async {
        for side in [Side::Client, Side::Backend] {
            let (faults, _backend, listen) = echo(1).await;
            let mut client = FakeClient::connect(listen).await;
            talks(&mut client).await;
            let toxic = slow(FOR_EVER).towards(side);
            faults.add("echo", toxic.clone()).await.expect("it is new");
            client.send(b"held").await;
            // The backend's answer, or the request, is now in the toxic's hand, or will be.
            let second = Toxic::new(Fault::Bandwidth { rate: 0 }).towards(side);
            faults.add("echo", second.clone()).await.expect("it is new");
            client.send(b" back").await;
            faults.remove("echo", &toxic.name).await.expect("it is there");
            client.send(b" again").await;
            faults.remove("echo", &second.name).await.expect("it is there");
            assert_eq!(client.recv_exact(15).await, b"held back again");
            talks(&mut client).await;
            client.fin();
            assert_eq!(client.recv_to_end().await.ending, Ending::Fin);
        }
    });
}

#[test]
fn many_changes_under_load_lose_and_swap_nothing() {
    block_on(async {
        let (faults, _backend, listen) = echo(2).await;
        let mut client = FakeClient::connect(listen).await;
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|place| (place % 251) as u8).collect();
        let (send, recv) = client.halves();
        let sending = async {
            send.send(&bytes).await;
            send.fin();
        };
        let changing = async {
            for round in 0..40_u64 {
                let side = if round % 3 == 0 { Side::Backend } else { Side::Client };
                let fault = match round % 4 {
                    0 => Fault::Slicer {
                        average_size: 700,
                        size_variation: 300,
                        delay: Duration::ZERO,
                    },
                    1 => {
                        Fault::Latency { latency: Duration::from_millis(1), jitter: Duration::ZERO }
                    }
                    2 => Fault::Bandwidth { rate: 50_000 },
                    _ => Fault::SlowClose { delay: Duration::from_millis(1) },
                };
                let name = format!("toxic-{round}");
                let toxic = Toxic::new(fault).towards(side).named(&name);
                faults.add("echo", toxic).await.expect("it is new");
                if round >= 5 {
                    let name = format!("toxic-{}", round - 5);
                    faults.remove("echo", &name).await.expect("it is there");
                }
            }
        };
        let receiving = recv.recv_to_end();
        let ((), ((), seen)) =
            futures_lite::future::zip(sending, futures_lite::future::zip(changing, receiving))
                .await;
        assert_eq!(seen.ending, Ending::Fin);
        assert!(seen.bytes == bytes, "{} bytes came of {}", seen.bytes.len(), bytes.len());
    });
}

#[test]
fn a_fault_at_the_nth_byte_of_the_nth_connection() {
    block_on(async {
        let (faults, _backend, listen) = echo(3).await;
        let toxic = Toxic::new(RESET).on_connection(2).after_bytes(3);
        faults.add("echo", toxic).await.expect("it is new");
        for number in 1..=3 {
            let mut client = FakeClient::connect(listen.clone()).await;
            if number == 2 {
                client.send(b"hello").await;
                let seen = client.recv_to_end().await;
                assert_eq!(seen.bytes, b"hel");
                assert!(seen.ending.is_reset(), "{:?}", seen.ending);
            } else {
                talks(&mut client).await;
            }
        }
        // Connections count from 1 again.
        faults.reset().await.expect("the port is its own");
        faults.add("echo", Toxic::new(RESET).on_connection(1)).await.expect("it is new");
        let mut client = FakeClient::connect(listen.clone()).await;
        client.send(b"hello").await;
        let seen = client.recv_to_end().await;
        assert_eq!((seen.bytes.len(), seen.ending.is_reset()), (0, true));
        talks(&mut FakeClient::connect(listen).await).await;
    });
}

#[test]
fn limit_data_shows_both_peers_a_clean_end_behind_exactly_so_many_bytes() {
    block_on(async {
        let backend = FakeBackend::by_hand().listen();
        let faults = Faults::start(4);
        let proxy = faults.proxy("p", backend.address()).await.expect("a free port");
        faults.add("p", Toxic::new(Fault::LimitData { bytes: 4 })).await.expect("it is new");
        let mut client = FakeClient::connect(proxy.listen).await;
        let mut peer = backend.accept().await;
        client.send(b"request").await;
        assert_eq!(peer.recv_exact(7).await, b"request");
        peer.send(b"reply").await;
        let seen = client.recv_to_end().await;
        assert_eq!((seen.bytes.as_slice(), seen.ending), (&b"repl"[..], Ending::Fin));
        assert_eq!(peer.recv_to_end().await.ending, Ending::Fin);
    });
}

#[test]
fn a_black_hole_ends_with_the_connection_when_it_is_taken_out_and_the_next_one_is_well() {
    block_on(async {
        let (faults, _backend, listen) = echo(5).await;
        let mut client = FakeClient::connect(listen.clone()).await;
        talks(&mut client).await;
        faults.add("echo", Toxic::new(BLACK_HOLE)).await.expect("it is new");
        client.send(b"lost").await;
        faults.remove("echo", "timeout_downstream").await.expect("it is there");
        let seen = client.recv_to_end().await;
        assert_eq!((seen.bytes.len(), seen.ending), (0, Ending::Fin));
        talks(&mut FakeClient::connect(listen).await).await;
    });
}

#[test]
fn a_proxy_that_is_disabled_refuses_and_serves_again_at_the_same_place() {
    block_on(async {
        let (faults, _backend, listen) = echo(6).await;
        let mut client = FakeClient::connect(listen.clone()).await;
        talks(&mut client).await;
        let enable = |enabled| Changes { enabled: Some(enabled), ..Changes::default() };
        let down = faults.update("echo", enable(false)).await.expect("it is there");
        assert_eq!((down.enabled, &down.listen), (false, &listen));
        assert!(client.recv_to_end().await.ending.is_reset());
        assert!(FakeClient::try_connect(listen.clone()).await.is_err());
        faults.update("echo", enable(true)).await.expect("the port is its own");
        talks(&mut FakeClient::connect(listen.clone()).await).await;
        let [proxy] = &faults.list().await[..] else { panic!("there is one") };
        assert_eq!((proxy.report.accepted, proxy.report.to_backend), (2, 10), "over both times");
        faults.delete("echo").await.expect("it is there");
        assert!(FakeClient::try_connect(listen).await.is_err());
        assert_eq!(faults.list().await, []);
    });
}

#[test]
fn what_is_refused_changes_nothing() {
    block_on(async {
        let (faults, backend, listen) = echo(7).await;
        faults.add("echo", slow(Duration::ZERO)).await.expect("it is new");
        let before = faults.list().await;
        let mut client = FakeClient::connect(listen.clone()).await;
        talks(&mut client).await;

        let new = New {
            name: "echo".into(),
            listen: local(),
            backend: backend.endpoint().clone(),
            enabled: true,
        };
        let check = |refused: Result<_, Refused>, expected: &str| match refused {
            Ok(_) => panic!("{expected:?} was not said"),
            Err(refused) => assert!(refused.to_string().contains(expected), "{refused}"),
        };
        check(faults.create(new.clone()).await, "proxy already exists");
        let taken = New { name: "other".into(), listen: listen.clone(), ..new.clone() };
        check(faults.create(taken.clone()).await, "address already in use");
        // A port that somebody else has.
        let held = FakeBackend::echo().listen();
        let elsewhere = Some(held.endpoint().clone());
        let changes = Changes { listen: elsewhere, ..Changes::default() };
        check(faults.update("echo", changes.clone()).await, "address already in use");
        let there = New { listen: held.endpoint().clone(), ..new.clone() };
        check(faults.put(there).await, "address already in use");
        check(faults.update("nobody", changes).await, "proxy not found");
        check(faults.add("echo", slow(FOR_EVER)).await, "toxic already exists");
        check(faults.add("nobody", slow(FOR_EVER)).await, "proxy not found");
        check(faults.remove("echo", "nobody").await, "toxic not found");
        check(faults.edit("echo", "latency_downstream", |_| Err("no".into())).await, "no");
        check(faults.delete("nobody").await, "proxy not found");

        talks(&mut client).await;
        talks(&mut FakeClient::connect(listen).await).await;
        let after = faults.list().await;
        let shown = |list: &[trunkline::testing::faults::Proxied]| {
            let mut list = list.to_vec();
            list.iter_mut().for_each(|proxy| proxy.report = Default::default());
            list
        };
        assert_eq!(shown(&before), shown(&after));
    });
}

#[test]
fn a_proxy_like_the_one_there_is_stays_and_another_takes_its_place() {
    block_on(async {
        let (faults, backend, listen) = echo(8).await;
        faults.add("echo", slow(Duration::ZERO)).await.expect("it is new");
        let mut client = FakeClient::connect(listen.clone()).await;
        talks(&mut client).await;
        let same = New {
            name: "echo".into(),
            listen: listen.clone(),
            backend: backend.endpoint().clone(),
            enabled: true,
        };
        let put = faults.put(same.clone()).await.expect("nothing is to do");
        assert_eq!(put.toxics.len(), 1);
        talks(&mut client).await;
        let other = FakeBackend::babble("hello").listen();
        let put = faults.put(New { backend: other.endpoint().clone(), ..same }).await;
        assert_eq!(put.expect("the port is its own").toxics, []);
        assert!(client.recv_to_end().await.ending.is_reset());
        assert_eq!(FakeClient::connect(listen).await.recv_exact(5).await, b"hello");
    });
}

#[test]
fn toxicity_is_drawn_by_the_seed_and_the_number_of_the_connection() {
    let drawn = |seed| {
        block_on(async {
            let (faults, _backend, listen) = echo(seed).await;
            faults.add("echo", Toxic::new(RESET).toxicity(0.5)).await.expect("it is new");
            let mut drawn = Vec::new();
            for _ in 0..40 {
                let mut client = FakeClient::connect(listen.clone()).await;
                client.send(b"hello").await;
                client.fin();
                drawn.push(client.recv_to_end().await.ending.is_reset());
            }
            drawn
        })
    };
    let first = drawn(7);
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
    assert_eq!(first, drawn(7));
    assert_ne!(first, drawn(8));
}

#[test]
fn every_address_is_every_address_of_both_kinds() {
    block_on(async {
        let backend = FakeBackend::babble("hello").listen();
        let faults = Faults::start(9);
        let new = New {
            name: "all".into(),
            listen: SocketAddr::from(([0_u16; 8], 0)).into(),
            backend: backend.endpoint().clone(),
            enabled: true,
        };
        let proxy = faults.create(new).await.expect("a free port");
        let port = proxy.listen.port().expect("it listens on one");
        for place in [
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1_u16], port)),
        ] {
            assert_eq!(FakeClient::connect(place).await.recv_exact(5).await, b"hello");
        }
    });
}

#[test]
fn a_cut_does_not_wait_for_the_other_direction_nor_for_a_peer_that_does_not_read() {
    block_on(async {
        for cut in [RESET, Fault::Timeout { timeout: Duration::from_millis(1) }] {
            let stall = trunkline::testing::behaviours::Stall::new();
            let backend = FakeBackend::stall(&stall).listen();
            let faults = Faults::start(10);
            let proxy = faults.proxy("p", backend.address()).await.expect("a free port");
            let held =
                Toxic::new(Fault::Bandwidth { rate: 0 }).towards(Side::Backend).after_bytes(1);
            faults.add("p", held).await.expect("it is new");
            let mut client = FakeClient::connect(proxy.listen).await;
            client.send(&[b'x'; 20_000]).await;
            faults
                .add("p", Toxic::new(cut).towards(Side::Backend).named("cut"))
                .await
                .expect("new");
            // What the first toxic holds never comes to the second: only its own time, or its being taken out, ends it.
            faults.remove("p", "bandwidth_upstream").await.expect("it is there");
            let seen = client.recv_to_end().await;
            assert_eq!(seen.ending == Ending::Fin, cut != RESET, "{cut:?}: {seen:?}");
        }
    });
}

#[test]
fn a_proxy_whose_new_place_cannot_be_had_goes_on_as_it_was() {
    block_on(async {
        let (faults, backend, listen) = echo(11).await;
        let mut client = FakeClient::connect(listen.clone()).await;
        talks(&mut client).await;
        let itself = Changes { backend: Some(listen.clone()), ..Changes::default() };
        assert!(matches!(faults.update("echo", itself).await, Err(Refused::Invalid(_))));
        talks(&mut client).await;
        // The same port of every address: the old one has to go first, and it can.
        let port = listen.port().expect("a port");
        let wide = SocketAddr::from(([0, 0, 0, 0], port)).into();
        let wide = Changes { listen: Some(wide), ..Changes::default() };
        faults.update("echo", wide).await.expect("its own port");
        talks(&mut FakeClient::connect(SocketAddr::from(([127, 0, 0, 1], port))).await).await;
        drop(backend);
    });
}

#[test]
fn a_reset_reaches_all_and_names_the_one_that_it_cannot_enable() {
    block_on(async {
        let faults = Faults::start(12);
        let backend = FakeBackend::echo().listen();
        for name in ["a", "b", "c"] {
            faults.proxy(name, backend.address()).await.expect("a free port");
            faults.add(name, slow(FOR_EVER)).await.expect("it is new");
        }
        let off = Changes { enabled: Some(false), ..Changes::default() };
        let b = faults.update("b", off).await.expect("it is there");
        let taken = FakeBackend::echo().listen_at(b.listen);
        assert!(matches!(faults.reset().await, Err(Refused::Failed(_))));
        assert!(faults.list().await.iter().all(|proxy| proxy.toxics.is_empty()));
        drop(taken);
    });
}

#[test]
fn a_connection_that_lived_through_a_reset_is_not_the_first_of_the_new_count() {
    block_on(async {
        let (faults, _backend, listen) = echo(13).await;
        let mut old = FakeClient::connect(listen.clone()).await;
        talks(&mut old).await;
        faults.reset().await.expect("nothing is in its way");
        faults.add("echo", Toxic::new(RESET).on_connection(1)).await.expect("it is new");
        talks(&mut old).await;
        let mut new = FakeClient::connect(listen).await;
        new.send(b"hello").await;
        assert!(new.recv_to_end().await.ending.is_reset());
    });
}

#[test]
fn ports_are_free_once_it_has_stopped() {
    block_on(async {
        let backend = FakeBackend::echo().listen();
        let mut listen = local();
        for seed in 0..20 {
            let faults = Faults::start(seed);
            let new = New {
                name: "p".into(),
                listen: listen.clone(),
                backend: backend.endpoint().clone(),
                enabled: true,
            };
            listen = faults.create(new).await.expect("the port is free").listen;
            talks(&mut FakeClient::connect(listen.clone()).await).await;
            faults.stop().await;
        }
    });
}

#[test]
fn a_time_too_long_for_any_clock_is_never_and_a_panic_is_nobody_elses() {
    block_on(async {
        let (faults, _backend, listen) = echo(14).await;
        for fault in [
            Fault::SlowClose { delay: Duration::MAX },
            Fault::ResetPeer { timeout: Duration::MAX },
            Fault::Timeout { timeout: Duration::MAX },
            Fault::Latency { latency: Duration::MAX, jitter: Duration::MAX },
            Fault::Slicer {
                average_size: u64::MAX,
                size_variation: u64::MAX,
                delay: Duration::MAX,
            },
        ] {
            let mut client = FakeClient::connect(listen.clone()).await;
            talks(&mut client).await;
            let toxic = Toxic::new(fault);
            let name = toxic.name.clone();
            faults.add("echo", toxic).await.expect("it is new");
            client.send(b"hello").await;
            let panics = |_: &Toxic| -> Result<Toxic, String> { panic!("on purpose") };
            assert!(faults.edit("echo", &name, panics).await.is_err());
            let other = |old: &Toxic| Ok(Toxic { fault: Fault::Noop, ..old.clone() });
            assert!(matches!(faults.edit("echo", &name, other).await, Err(Refused::Invalid(_))));
            faults.remove("echo", &name).await.expect("it is there");
            if !matches!(fault, Fault::Timeout { .. }) {
                assert_eq!(client.recv_exact(5).await, b"hello", "{fault:?}");
            }
        }
        let nameless = Toxic::new(RESET).named("");
        assert!(faults.add("echo", nameless).await.is_err());
        assert!(faults.add("echo", Toxic::new(RESET).toxicity(f64::NAN)).await.is_err());
        assert!(faults.add("echo", Toxic::new(RESET).on_connection(0)).await.is_err());
    });
}
