//! What a signal means.

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;
use std::io;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP: reopen the log; without a log file, the terminal has gone, and that is a stop.
    Hangup,
}

/// The signals that this process takes, from now on.
pub(crate) struct Orders(Signals);

impl Orders {
    pub(crate) fn new() -> io::Result<Self> {
        Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map(Orders)
    }

    /// The next order. It never ends: a signal pipe that breaks leaves the process to SIGKILL.
    pub(crate) async fn next(&mut self) -> Order {
        loop {
            match self.0.next().await {
                Some(Ok(Signal::Hup)) => return Order::Hangup,
                Some(Ok(_)) => return Order::Stop,
                Some(Err(_)) => {}
                None => futures_lite::future::pending().await,
            }
        }
    }
}
