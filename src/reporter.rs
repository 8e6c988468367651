//! Says now and then how the proxy is doing.
//!
//! - **Owns** nothing but its interval.
//! - **Receives** nothing; it waits for time to pass.
//! - **Sends to** the `directory`: `Report`, and waits for the answer.
//! - **Ends when** the directory has gone, or it is cancelled.
//! - **Never** is needed: should the embedder's callback panic, everything else goes on.

use crate::directory;
use crate::mailbox::Address;
use crate::proxy::{Route, ask};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAME: &str = "reporter";

pub(crate) struct Reporter {
    pub(crate) every: Duration,
    pub(crate) directory: Address<directory::Message>,
    pub(crate) route: Arc<Route>,
}

impl Reporter {
    pub(crate) async fn run(self) {
        loop {
            self.route.runtime.sleep(self.every).await;
            let report = ask(&self.directory, |reply| directory::Message::Report { reply }).await;
            let Some(report) = report else { return };
            report.log(self.every);
            self.route.events.on_timer(&report);
        }
    }
}
