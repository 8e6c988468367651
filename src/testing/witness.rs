//! Hears of every connection's end on behalf of the harness, and passes all callbacks on to the test's own.

use crate::{ConnId, Ended, Endpoint, Events, Report, Side};
use async_channel::Sender;

pub(crate) struct Witness {
    pub(crate) ended: Sender<Ended>,
    pub(crate) others: Vec<Box<dyn Events>>,
}

impl Events for Witness {
    fn on_start(&self, listening: &[Endpoint]) {
        self.others.iter().for_each(|events| events.on_start(listening));
    }

    fn on_connect(&self, conn: ConnId, client: &Endpoint) {
        self.others.iter().for_each(|events| events.on_connect(conn, client));
    }

    fn on_receive(&self, conn: ConnId, from: Side, bytes: &[u8]) {
        self.others.iter().for_each(|events| events.on_receive(conn, from, bytes));
    }

    fn on_close(&self, ended: &Ended) {
        /// Tells last, and even if another callback panics.
        struct Tell<'a>(&'a Sender<Ended>, &'a Ended);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                // Full: the test does not ask.
                let _ = self.0.try_send(self.1.clone());
            }
        }
        let _tell = Tell(&self.ended, ended);
        self.others.iter().for_each(|events| events.on_close(ended));
    }

    fn on_timer(&self, report: &Report) {
        self.others.iter().for_each(|events| events.on_timer(report));
    }

    fn on_shutdown(&self) {
        self.others.iter().for_each(|events| events.on_shutdown());
    }
}
