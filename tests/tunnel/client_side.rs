//! Each behaviour of a client, against a backend that the test plays.

use super::{until, worlds};
use std::time::Duration;
use trunkline::testing::behaviours::{
    Babble, Cut, Drip, Echo, HalfClose, LastWords, Reset, Script, Stall,
};
use trunkline::testing::{Behaviour, Ending, FakeBackend, Harness, Peer, Seen, block_on};
use trunkline::{By, Ended, Phase, Side};

/// Lets a client behave while the test plays the backend; gives what the client saw and how the connection ended.
fn play(
    behaviour: &dyn Behaviour,
    backend: impl AsyncFn(&Harness, Peer),
    check: impl Fn(Seen, Ended),
) {
    for world in worlds() {
        let harness = world.backend(FakeBackend::by_hand()).start();
        block_on(async {
            let playing = async {
                let peer = harness.backend(0).accept().await;
                backend(&harness, peer).await;
            };
            let (seen, ()) = futures_lite::future::zip(harness.run(behaviour), playing).await;
            check(seen, harness.ended().await);
        });
    }
}

fn clean(ended: &Ended) {
    assert!(ended.clean && ended.lost() == 0 && ended.cause.is_empty(), "{ended:?}");
}

#[test]
fn an_echoing_client_returns_what_the_backend_sends() {
    let backend = async |_: &Harness, mut peer: Peer| {
        peer.send(b"ping").await;
        assert_eq!(peer.recv_exact(4).await, b"ping");
        peer.fin();
        assert_eq!(peer.recv().await, None);
        peer.close();
    };
    play(&Echo, backend, |seen, ended| {
        assert_eq!((&seen.bytes[..], seen.ending), (&b"ping"[..], Ending::Fin));
        clean(&ended);
    });
}

#[test]
fn a_client_that_speaks_and_listens_is_heard_and_answered() {
    let backend = async |_: &Harness, mut peer: Peer| {
        assert_eq!(peer.recv_exact(5).await, b"hello");
        peer.send(b"world").await;
        peer.fin();
        assert_eq!(peer.recv().await, None);
    };
    play(&Babble(b"hello".to_vec()), backend, |seen, ended| {
        assert_eq!((&seen.bytes[..], seen.ending), (&b"world"[..], Ending::Fin));
        clean(&ended);
    });
}

#[test]
fn a_client_that_ends_its_sending_at_once_still_gets_its_answer() {
    let backend = async |harness: &Harness, mut peer: Peer| {
        let request = peer.recv_to_end().await;
        assert_eq!((&request.bytes[..], request.ending), (&b"request"[..], Ending::Fin));
        until(harness, Phase::HalfClosed).await;
        peer.send(b"answer").await;
        peer.fin();
        peer.close();
    };
    play(&HalfClose(b"request".to_vec()), backend, |seen, ended| {
        assert_eq!((&seen.bytes[..], seen.ending), (&b"answer"[..], Ending::Fin));
        assert_eq!(ended.by, By::Peer(Side::Client));
        clean(&ended);
    });
}

#[test]
fn what_a_client_drips_arrives_complete() {
    let drip = Drip { bytes: b"ab".to_vec(), every: Duration::from_millis(1), times: 5 };
    let backend = async |_: &Harness, mut peer: Peer| {
        let heard = peer.recv_to_end().await;
        assert_eq!((&heard.bytes[..], heard.ending), (&b"ababababab"[..], Ending::Fin));
        peer.fin();
        peer.close();
    };
    play(&drip, backend, |seen, ended| {
        assert_eq!(seen.ending, Ending::Fin);
        clean(&ended);
    });
}

#[test]
fn a_client_that_closes_ends_the_backend_stream_cleanly() {
    let backend = async |harness: &Harness, mut peer: Peer| {
        peer.send(b"hello").await;
        assert_eq!(peer.recv().await, None);
        until(harness, Phase::HalfClosed).await;
        peer.fin();
        peer.close();
    };
    play(&Cut { after: 5 }, backend, |seen, ended| {
        assert_eq!(seen.bytes, b"hello");
        assert_eq!(ended.by, By::Peer(Side::Client));
        clean(&ended);
    });
}

#[test]
fn a_reset_of_the_client_reaches_the_backend_as_a_reset() {
    let backend = async |_: &Harness, mut peer: Peer| {
        peer.send(b"hello").await;
        let heard = peer.recv_to_end().await;
        assert_eq!(heard.bytes, b"");
        assert!(heard.ending.is_reset());
    };
    play(&Reset { after: 5, words: Vec::new() }, backend, |_, ended| {
        assert_eq!((ended.by, ended.phase), (By::Peer(Side::Client), Phase::Data));
        assert!(!ended.clean && ended.cause.contains("reset"), "{ended:?}");
    });
}

#[test]
fn the_last_words_of_a_client_arrive_before_the_reset() {
    let words = LastWords { after: 1, words: b"enough".to_vec() };
    let backend = async |_: &Harness, mut peer: Peer| {
        peer.send(&[b'x'; 1000]).await;
        let heard = peer.recv_to_end().await;
        assert_eq!(heard.bytes, b"enough");
        assert!(heard.ending.is_reset());
    };
    play(&words, backend, |_, ended| {
        assert_eq!((ended.by, ended.clean), (By::Peer(Side::Client), false));
    });
}

#[test]
fn a_client_that_stalled_gets_everything_once_it_reads() {
    let stall = Stall::new();
    let backend = async |_: &Harness, mut peer: Peer| {
        let many = vec![b'x'; 1 << 20];
        futures_lite::future::zip(peer.send(&many), async { stall.release() }).await;
        peer.fin();
        assert_eq!(peer.recv().await, None);
        peer.close();
    };
    play(&stall.clone(), backend, |seen, ended| {
        assert_eq!((seen.count, seen.ending), (1 << 20, Ending::Fin));
        clean(&ended);
    });
}

#[test]
fn a_client_that_plays_a_script_has_its_conversation() {
    let script = "expect \"220 ready\\r\\n\"\nsend \"QUIT\\r\\n\"\nfin\ndrain";
    let script: Script = script.parse().expect("a script");
    let backend = async |_: &Harness, mut peer: Peer| {
        peer.send(b"220 ready\r\n").await;
        assert_eq!(peer.recv_to_end().await.bytes, b"QUIT\r\n");
        peer.close();
    };
    play(&script, backend, |seen, ended| {
        assert_eq!((&seen.bytes[..], seen.ending), (&b"220 ready\r\n"[..], Ending::Fin));
        clean(&ended);
    });
}
