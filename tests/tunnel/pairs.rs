//! Every behaviour of a client against every behaviour of a backend. Whatever they do to each other:
//!
//! - nobody sees a byte that the other did not send, or one out of order;
//! - who sees a clean end of the stream has seen all that the other said;
//! - a connection is called clean only if nothing was lost.

use super::{until_some, worlds};
use std::sync::Arc;
use std::time::Duration;
use trunkline::Phase;
use trunkline::testing::behaviours::{
    Babble, Cut, Drip, Echo, HalfClose, LastWords, Reset, Script, Stall,
};
use trunkline::testing::{Behaviour, Ending, FakeBackend, HarnessBuilder, Seen, block_on};

/// One of the two, and what is known of it.
struct Part {
    name: &'static str,
    behaviour: Arc<dyn Behaviour>,
    /// What it says, whatever the other does; an echo says what it hears.
    says: Option<Vec<u8>>,
    ends: Ends,
    stall: Stall,
}

#[derive(Clone, Copy, PartialEq)]
enum Ends {
    First,
    /// Once it has heard something.
    OnHearing,
    /// After the other.
    Second,
    Never,
}

fn parts(words: &str) -> Vec<Part> {
    let says = words.as_bytes().to_vec();
    let stall = Stall::new();
    let drip = Drip { bytes: says.clone(), every: Duration::from_millis(1), times: 3 };
    let script: Script = format!("drain\nsend {words:?}\nfin").parse().expect("a script");
    let part = |name, behaviour: Arc<dyn Behaviour>, says: Option<&[u8]>, ends| Part {
        name,
        behaviour,
        says: says.map(<[u8]>::to_vec),
        ends,
        stall: stall.clone(),
    };
    vec![
        part("echo", Arc::new(Echo), None, Ends::Second),
        part("babble", Arc::new(Babble(says.clone())), Some(&says), Ends::Second),
        part("stall", Arc::new(stall.clone()), Some(b""), Ends::Never),
        part("half_close", Arc::new(HalfClose(says.clone())), Some(&says), Ends::First),
        part("drip", Arc::new(drip), Some(&says.repeat(3)), Ends::First),
        part("cut at once", Arc::new(Cut { after: 0 }), Some(b""), Ends::First),
        part("cut", Arc::new(Cut { after: 3 }), Some(b""), Ends::OnHearing),
        part(
            "reset at once",
            Arc::new(Reset { after: 0, words: Vec::new() }),
            Some(b""),
            Ends::First,
        ),
        part("reset", Arc::new(Reset { after: 3, words: Vec::new() }), Some(b""), Ends::OnHearing),
        part(
            "last_words",
            Arc::new(LastWords { after: 1, words: says.clone() }),
            Some(&says),
            Ends::OnHearing,
        ),
        part("script", Arc::new(script), Some(&says), Ends::Second),
    ]
}

/// Whether the two come to an end without being told to.
fn end_by_themselves(one: &Part, other: &Part) -> bool {
    let speaks = |part: &Part| matches!(part.name, "babble" | "half_close" | "drip");
    match (one.ends, other.ends) {
        (Ends::Never, _) | (_, Ends::Never) => false,
        (Ends::First, _) | (_, Ends::First) => true,
        (Ends::OnHearing, _) if speaks(other) => true,
        (_, Ends::OnHearing) if speaks(one) => true,
        _ => false,
    }
}

#[test]
fn whoever_meets_whom_no_byte_is_made_up_and_no_broken_stream_looks_whole() {
    for place in 0..parts("any").len() {
        for other in 0..parts("any").len() {
            for world in worlds() {
                let client = parts("the client's words").swap_remove(place);
                let backend = parts("what the backend says").swap_remove(other);
                check(world, &client, &backend);
            }
        }
    }
}

fn check(world: HarnessBuilder, client: &Part, backend: &Part) {
    let names = format!("client {} with backend {}", client.name, backend.name);
    let harness = world.backend(FakeBackend::new(Arc::clone(&backend.behaviour))).start();
    block_on(async {
        let ending = async {
            if !end_by_themselves(client, backend) {
                // Some of these end all the same, by an error.
                let ended = async { Some(harness.ended().await) };
                let carried = async {
                    until_some(&harness, |phase| phase != Phase::Connect).await;
                    None
                };
                if let Some(ended) = futures_lite::future::or(ended, carried).await {
                    return ended;
                }
                harness.handle().abort().await;
            }
            harness.ended().await
        };
        let ending = async {
            let ended = ending.await;
            client.stall.release();
            backend.stall.release();
            ended
        };
        let (heard, ended) =
            futures_lite::future::zip(harness.run(&*client.behaviour), ending).await;
        let names = format!("{names}: {ended:?}");
        heard_right(&format!("{names}: client"), &heard, backend, client);
        if ended.backend.is_some() {
            let heard = harness.backend(0).seen().await;
            heard_right(&format!("{names}: backend"), &heard, client, backend);
        }
        if ended.clean {
            assert_eq!((ended.lost(), &ended.cause[..]), (0, ""), "{names}");
        } else {
            assert!(!ended.cause.is_empty(), "{names}");
        }
        let report = harness.stop().await;
        assert_eq!((report.clean, report.aborted), (ended.clean.into(), (!ended.clean).into()));
    });
}

/// `heard` came from `speaker`, and `listener` heard it.
fn heard_right(names: &str, heard: &Seen, speaker: &Part, listener: &Part) {
    let echoed = listener.says.clone().unwrap_or_default();
    let said = speaker.says.as_ref().unwrap_or(&echoed);
    assert!(said.starts_with(&heard.bytes), "{names} heard {heard:?}");
    if heard.ending == Ending::Fin {
        assert!(!speaker.name.starts_with("reset"), "{names} heard {heard:?}");
        assert_eq!(&heard.bytes, said, "{names} heard {heard:?}");
    }
}
