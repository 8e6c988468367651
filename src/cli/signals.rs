//! What a signal means.

use super::Failure;
use async_signal::{Signal, Signals};
use futures_lite::StreamExt;
use trunkline::units::show_error;

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
    pub(crate) fn new() -> Result<Self, Failure> {
        let signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup]);
        let failed =
            |error| Failure::Runtime(format!("cannot take signals: {}", show_error(&error)));
        signals.map(Orders).map_err(failed)
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
