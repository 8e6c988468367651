//! Fake peers and a harness, for tests of this proxy and of programs that embed it.
//!
//! ```text
//!   FakeClient ──> Peer <═ bytes ═> ┌───────────────┐ <═ bytes ═> Peer ──> Behaviour
//!   (the test acts, or              │ Proxy, on its │              (the backend's; or the test
//!    a Behaviour does)              │ own thread    │               acts, with `by_hand`)
//!                                   └───────────────┘
//!                         Harness ──┤ ended(), handle(), stop() -> Report
//! ```
//!
//! The `═` are real sockets on free ports, or memory: with [`HarnessBuilder::in_memory`] no test touches the network.
//! A [`Peer`] is the same in both. Every wait has a deadline, and nothing sleeps to let something else happen.
//!
//! Everything is async and needs no runtime: [`block_on`] is enough, as is the one of any other.
//!
//! ```
//! use trunkline::testing::{Ending, FakeBackend, Harness, block_on};
//!
//! // A server that answers before it has read the request, and closes: the answer must get through.
//! let harness = Harness::builder().backend(FakeBackend::last_words(1, "413 too large")).start();
//! block_on(async {
//!     let mut client = harness.client().await;
//!     client.send(&[b'x'; 1000]).await;
//!     let seen = client.recv_to_end().await;
//!     assert_eq!(seen.bytes, b"413 too large");
//!     assert!(seen.ending.is_reset());
//!     assert_eq!(harness.ended().await.to_client, 13);
//! });
//! ```

#[cfg(feature = "testing")]
#[doc = include_str!("guide.md")]
pub mod guide {}
#[cfg(feature = "testing")]
pub mod sim;
#[cfg(feature = "testing")]
pub mod faults;
mod harness;
mod harness_builder;
mod backend;
mod running_backend;
mod client;
mod peer;
mod seen;
pub mod behaviours;
pub mod serve;
pub(crate) mod memory;
mod witness;
mod oracle;
#[cfg(feature = "testing")]
pub(crate) mod waits;
pub(crate) mod deadline;

pub use backend::FakeBackend;
pub use behaviours::Behaviour;
pub use client::FakeClient;
pub use deadline::DEADLINE;
pub use futures_lite::future::block_on;
pub use harness::Harness;
pub use harness_builder::HarnessBuilder;
pub use memory::pair;
pub use oracle::Oracle;
pub use peer::{Peer, RecvHalf, SendHalf};
pub use running_backend::{MemoryConnect, RunningBackend};
pub use seen::{Ending, Seen};
