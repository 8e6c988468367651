//! What one peer says and hears, whatever it speaks.

use super::DAWDLE;
use crate::runtime::{Either, Runtime, race};
use crate::socket::{Chunk, Socket, recv, send_all};
use crate::testing::sim::world::World;
use std::collections::VecDeque;

/// What one peer says and hears.
pub(super) struct Talk {
    pub(super) speech: Vec<u8>,
    pub(super) said: usize,
    pub(super) heard: Vec<u8>,
    pub(super) broken: bool,
}

impl Talk {
    pub(super) fn new(speech: Vec<u8>) -> Talk {
        Talk { speech, said: 0, heard: Vec::new(), broken: false }
    }

    /// It has said everything, or cannot say any more.
    pub(super) fn done(&self) -> bool {
        self.broken || self.said == self.speech.len()
    }

    pub(super) fn lines_sent(&self) -> usize {
        self.speech[..self.said].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Says a part of what comes before this place.
    pub(super) async fn speak(&mut self, world: &World, socket: &dyn Socket, before: usize) {
        let end = before.min(self.speech.len());
        let most = (end - self.said).min(1 + world.roll(600));
        let part = self.speech[self.said..self.said + most].to_vec();
        let mut chunks = VecDeque::from([Chunk::from(part)]);
        let said = &mut self.said;
        let patience = world.while_up_to(DAWDLE);
        let sending = send_all(socket, &mut chunks, |sent| *said += sent);
        if let Either::A(Err(_)) = race(sending, world.sleep(patience)).await {
            self.broken = true;
        }
    }

    /// Hears a part; at the end of the stream, whether that was a clean one.
    pub(super) async fn listen(&mut self, world: &World, socket: &dyn Socket) -> Option<bool> {
        let patience = world.while_up_to(DAWDLE);
        match race(recv(socket), world.sleep(patience)).await {
            Either::A(Ok(Some(chunk))) => {
                self.heard.extend_from_slice(&chunk);
                None
            }
            Either::A(Ok(None)) => Some(true),
            Either::A(Err(_)) => Some(false),
            Either::B(()) => None,
        }
    }

    /// The lines that are complete.
    pub(super) fn lines(&mut self) -> Vec<String> {
        let Some(end) = self.heard.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let complete: Vec<u8> = self.heard.drain(..=end).collect();
        let text = String::from_utf8_lossy(&complete).into_owned();
        text.split_inclusive('\n').map(str::to_string).collect()
    }
}
