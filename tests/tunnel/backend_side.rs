//! Each behaviour of a backend, against a client that the test plays.

use super::{until, worlds};
use std::time::Duration;
use trunkline::testing::behaviours::Stall;
use trunkline::testing::{Ending, FakeBackend, block_on};
use trunkline::{By, Phase, Side};

#[test]
fn what_a_client_sends_to_an_echo_comes_back_and_both_see_a_clean_end() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::echo()).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"hello").await;
            assert_eq!(client.recv_exact(5).await, b"hello");
            client.fin();
            assert_eq!(client.recv().await, None);
            let seen = harness.backend(0).seen().await;
            assert_eq!((&seen.bytes[..], seen.ending), (&b"hello"[..], Ending::Fin));

            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Client), Phase::Data));
            assert_eq!((ended.clean, ended.lost(), &ended.cause[..]), (true, 0, ""));
            assert_eq!((ended.from_client, ended.to_backend), (5, 5));
            assert_eq!((ended.from_backend, ended.to_client), (5, 5));
            assert_eq!(ended.backend.as_ref(), Some(harness.backend(0).endpoint()));
            assert!(ended.connect.is_some_and(|connect| connect <= ended.lasted));
        });
    }
}

#[test]
fn a_backend_that_speaks_first_is_heard_by_a_silent_client() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::babble("220 ready")).start();
        block_on(async {
            let mut client = harness.client().await;
            assert_eq!(client.recv_exact(9).await, b"220 ready");
            client.fin();
            assert_eq!(client.recv().await, None);
            let ended = harness.ended().await;
            assert!(ended.clean, "{ended:?}");
            assert_eq!((ended.from_client, ended.to_client), (0, 9));
        });
    }
}

#[test]
fn a_backend_that_ends_its_sending_first_still_hears_the_client() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::half_close("all I know")).start();
        block_on(async {
            let mut client = harness.client().await;
            let heard = client.recv_to_end().await;
            assert_eq!((&heard.bytes[..], heard.ending), (&b"all I know"[..], Ending::Fin));
            until(&harness, Phase::HalfClosed).await;
            client.send(b"thank you").await;
            client.fin();
            let seen = harness.backend(0).seen().await;
            assert_eq!((&seen.bytes[..], seen.ending), (&b"thank you"[..], Ending::Fin));
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::Data));
            assert!(ended.clean, "{ended:?}");
        });
    }
}

#[test]
fn what_a_backend_drips_arrives_drop_by_drop_and_complete() {
    for world in worlds() {
        let drip = FakeBackend::drip("ab", Duration::from_millis(1), 5);
        let harness = world.backend(drip).start();
        block_on(async {
            let mut client = harness.client().await;
            let heard = client.recv_to_end().await;
            assert_eq!((&heard.bytes[..], heard.ending), (&b"ababababab"[..], Ending::Fin));
            client.fin();
            assert!(harness.ended().await.clean);
        });
    }
}

#[test]
fn a_backend_that_closes_is_a_clean_end_if_the_client_ends_too() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::cut(5)).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"hello").await;
            assert_eq!(client.recv_to_end().await.ending, Ending::Fin);
            until(&harness, Phase::HalfClosed).await;
            client.fin();
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.clean), (By::Peer(Side::Backend), true));
            client.close();
        });
    }
}

#[test]
fn a_client_that_writes_on_to_a_closed_backend_is_not_told_that_all_went_well() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::cut(5)).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"hello").await;
            assert_eq!(client.recv().await, None, "the backend ended its sending");
            while client.try_send(b"and more").await.is_ok() {}
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::HalfClosed));
            assert!(!ended.clean && !ended.cause.is_empty(), "{ended:?}");
        });
    }
}

#[test]
fn a_reset_of_the_backend_reaches_the_client_as_a_reset_behind_the_last_byte() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::by_hand()).start();
        block_on(async {
            let mut client = harness.client().await;
            let mut backend = harness.backend(0).accept().await;
            client.send(b"hello").await;
            assert_eq!(backend.recv_exact(5).await, b"hello");
            backend.send(b"half an ans").await;
            backend.delivered().await;
            backend.reset();
            let heard = client.recv_to_end().await;
            assert_eq!(heard.bytes, b"half an ans");
            assert!(heard.ending.is_reset());
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::Data));
            assert!(!ended.clean && ended.cause.contains("reset"), "{ended:?}");
            assert_eq!((ended.to_client, ended.lost()), (11, 0));
        });
    }
}

#[test]
fn a_backend_that_resets_after_a_request_gives_the_client_no_clean_end() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::reset(5)).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"hello").await;
            let heard = client.recv_to_end().await;
            assert_eq!(heard.bytes, b"");
            assert!(heard.ending.is_reset());
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.clean), (By::Peer(Side::Backend), false));
        });
    }
}

#[test]
fn the_last_words_of_a_backend_that_did_not_read_arrive_before_the_reset() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::last_words(1, "413 too large")).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(&[b'x'; 1000]).await;
            let heard = client.recv_to_end().await;
            assert_eq!(heard.bytes, b"413 too large");
            assert!(heard.ending.is_reset());
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.clean), (By::Peer(Side::Backend), false));
        });
    }
}

#[test]
fn a_backend_that_stalled_gets_everything_once_it_reads() {
    const MANY: usize = 3 << 20;
    for world in worlds() {
        let stall = Stall::new();
        let harness = world.backend(FakeBackend::stall(&stall)).start();
        block_on(async {
            let mut client = harness.client().await;
            until(&harness, Phase::Data).await;
            let many = vec![b'x'; MANY];
            futures_lite::future::zip(client.send(&many), async { stall.release() }).await;
            client.fin();
            let seen = harness.backend(0).seen().await;
            assert_eq!((seen.count, seen.ending), (MANY as u64, Ending::Fin));
            assert_eq!(client.recv().await, None);
            assert!(harness.ended().await.clean);
        });
    }
}

#[test]
fn without_a_backend_the_client_is_reset_and_the_cause_names_it() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::refuse()).start();
        block_on(async {
            let mut client = harness.client().await;
            assert!(client.recv_to_end().await.ending.is_reset());
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::Connect));
            assert_eq!((ended.clean, ended.backend), (false, None));
            let cause = format!("{}: connection refused", harness.backend(0).endpoint());
            assert_eq!(ended.cause, cause);
            assert_eq!(harness.stop().await.refused, 1);
        });
    }
}

#[test]
fn a_backend_that_plays_a_script_has_its_conversation_with_every_client() {
    for world in worlds() {
        let script = "expect \"PING\\r\\n\"\nsend \"+PONG\\r\\n\"\nskip 3b\nfin\ndrain";
        let harness = world.backend(FakeBackend::script(script)).start();
        block_on(async {
            for _ in 0..2 {
                let mut client = harness.client().await;
                client.send(b"PING\r\n").await;
                assert_eq!(client.recv_exact(7).await, b"+PONG\r\n");
                client.send(b"abc").await;
                assert_eq!(client.recv().await, None, "the backend ended its sending");
                client.close();
                let seen = harness.backend(0).seen().await;
                assert_eq!((seen.count, seen.ending), (9, Ending::Fin));
                assert!(harness.ended().await.clean);
            }
        });
    }
}

#[test]
fn a_backend_whose_script_is_not_met_is_a_reset_to_the_client() {
    for world in worlds() {
        let harness = world.backend(FakeBackend::script("expect \"PING\"")).start();
        block_on(async {
            let mut client = harness.client().await;
            client.send(b"QUIT").await;
            assert!(client.recv_to_end().await.ending.is_reset());
            let ended = harness.ended().await;
            assert_eq!((ended.by, ended.clean), (By::Peer(Side::Backend), false));
        });
    }
}
