//! Backends that speak the dialect, and what they hold the proxy to.

use super::talk::Talk;
use super::{DAWDLE, Ledger, all_behave, leave};
use crate::framing::Binding;
use crate::runtime::Runtime;
use crate::socket::Socket;
use crate::testing::sim::dialect::{self, Asked, Kind, RESET, Said, Verb};
use crate::testing::sim::net::End;
use crate::testing::sim::world::World;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a backend says that was not asked; no reply, wherever it comes.
pub(super) const BABBLE: &[u8] = b"is anybody there?\n";

/// Serves one trunk.
struct Backend<'a> {
    world: &'a World,
    ledger: &'a Ledger,
    talk: Talk,
    wild: bool,
    hasty: bool,
    /// Who has given the trunk a value. Only the reset query takes it away.
    value: Option<u8>,
    /// Who has the trunk for himself until then.
    pinned: Option<u8>,
    /// Requests whose replies are not all said, and where those end.
    owing: VecDeque<(Asked, usize)>,
    /// Whose request was the last to begin.
    latest: Option<u8>,
    /// The request whose head has come.
    begun: Option<Asked>,
    /// It was answered before it had come.
    early: bool,
    /// Whose tunnel it is.
    tunnel: Option<u8>,
    /// Its last reply said that the trunk was of no use behind it. Nothing more is carried out.
    retired: Option<u8>,
    /// It ends its sending when it has said everything.
    closes: bool,
}

pub(super) async fn backend(world: &World, ledger: &Ledger, socket: Arc<End>) {
    let mut backend = Backend {
        world,
        ledger,
        talk: Talk::new(Vec::new()),
        wild: world.chance(40) && !all_behave(world),
        hasty: world.chance(30),
        value: None,
        pinned: None,
        owing: VecDeque::new(),
        latest: None,
        begun: None,
        early: false,
        tunnel: None,
        retired: None,
        closes: false,
    };
    backend.live(socket).await;
}

impl Backend<'_> {
    async fn live(&mut self, socket: Arc<End>) {
        let slow = self.world.chance(30);
        let (mut heard, mut fin) = (false, false);
        while !(heard && fin && self.talk.done()) {
            if self.wild && self.world.chance(2) {
                let closes = self.world.chance(50);
                if closes {
                    self.cuts_short();
                }
                return leave(self.world, socket, "backend", closes);
            }
            if self.wild && self.owes_nothing() && self.world.chance(3) {
                return self.babbles(socket).await;
            }
            if slow && self.world.chance(4) {
                let pause = self.world.while_up_to(DAWDLE);
                self.world.sleep(pause).await;
            }
            if !self.talk.done() && (heard || self.world.chance(70)) {
                self.talk.speak(self.world, &*socket, usize::MAX).await;
                if self.talk.broken {
                    return;
                }
                let said = self.talk.said;
                self.owing.retain(|(_, end)| *end > said);
            } else if self.talk.done() && !fin && (heard || self.closes) {
                fin = true;
                if socket.shutdown_write().is_err() {
                    return;
                }
            } else if let Some(clean) = self.talk.listen(self.world, &*socket).await {
                heard = true;
                if !clean {
                    return;
                }
                self.sees_the_end();
            } else {
                self.hears();
            }
        }
        socket.disarm();
    }

    /// It has said all that it was asked for, and may go on.
    fn owes_nothing(&self) -> bool {
        let rests = self.begun.is_none() && self.tunnel.is_none() && self.talk.heard.is_empty();
        rests && self.talk.done() && !self.closes && self.retired.is_none()
    }

    /// Says what nobody asked for. Nobody is to have its trunk once that has arrived.
    async fn babbles(&mut self, socket: Arc<End>) {
        self.world.count("fault: backend says what nobody asked for");
        self.talk.speech.extend_from_slice(BABBLE);
        while !self.talk.done() {
            self.talk.speak(self.world, &*socket, usize::MAX).await;
        }
        socket.delivered().await;
        // Whoever has something to do has done it.
        self.world.sleep(Duration::from_micros(1)).await;
        if socket.coming() > 0 {
            // Sent before.
            return leave(self.world, socket, "backend", false);
        }
        while self.talk.listen(self.world, &*socket).await.is_none() {
            let Some(asked) = self.next_head() else { continue };
            // Whoever takes his replies slowly, and has the trunk, has nobody who reads on.
            if asked != RESET && self.latest != Some(asked.client) {
                self.breaks(&format!("was sent {asked:?} after it had said what nobody asked for"));
            }
            return leave(self.world, socket, "backend", false);
        }
    }

    /// It leaves, and whoever has no other sign of the end takes that for the end.
    fn cuts_short(&self) {
        let mut pages = self.ledger.pages();
        pages.cut_short.extend(self.owing.iter().map(|(asked, _)| asked.client));
        pages.cut_short.extend(self.begun.map(|asked| asked.client));
        pages.cut_short.extend(self.tunnel);
    }

    fn sees_the_end(&mut self) {
        // Whoever has ended his sending first is not owed the rest of a request.
        if self.tunnel.is_some() || self.retired.is_some() || self.closes {
            return;
        }
        if self.begun.is_some() || !self.talk.heard.is_empty() {
            let begun = self.begun;
            self.breaks(&format!("saw a clean end in the middle of {begun:?}"));
        }
        if let Some((owed, _)) = self.owing.front() {
            self.breaks(&format!("saw a clean end while it owed a reply to {owed:?}"));
        }
    }

    fn breaks(&self, what: &str) {
        self.ledger.breaks(format!("a backend {what}"));
    }

    /// Takes in what has come.
    fn hears(&mut self) {
        loop {
            if self.retired.is_some() {
                return self.overhears();
            }
            if let Some(client) = self.tunnel {
                return self.echoes(client);
            }
            let Some(asked) = self.begun else {
                match self.next_head() {
                    Some(asked) => self.begins(asked),
                    None => return,
                }
                continue;
            };
            let body = asked.body();
            if self.talk.heard.len() < body.len() {
                if self.is_hasty(asked) {
                    self.answers_early(asked);
                }
                return;
            }
            if self.talk.heard.drain(..body.len()).ne(body) {
                self.breaks(&format!("was sent another body than that of {asked:?}"));
            }
            self.begun = None;
            if !std::mem::take(&mut self.early) {
                self.answers(asked);
            }
        }
    }

    /// Some answer, by an error above all, before they have the whole request.
    fn is_hasty(&self, asked: Asked) -> bool {
        // Not before there is a tunnel.
        let never = matches!(asked.verb, Verb::Tunnel | Verb::Upgrade);
        self.hasty && !self.early && !never && self.world.chance(30)
    }

    /// It carries out nothing any more, but nobody else may have the trunk.
    fn overhears(&mut self) {
        let names = |line: &[u8]| Asked::parse(std::str::from_utf8(line).ok()?);
        let asked: Vec<_> =
            self.talk.heard.split(|byte| *byte == b'\n').filter_map(names).collect();
        for asked in asked {
            if self.retired != Some(asked.client) && !self.ledger.shared {
                self.breaks(&format!("was sent {asked:?} though its trunk was of no use"));
            }
        }
        self.talk.heard.clear();
    }

    fn next_head(&mut self) -> Option<Asked> {
        let found = match dialect::head(&self.talk.heard) {
            Ok(None) => return None,
            Ok(Some((line, length))) => Asked::parse(line).map(|asked| (asked, length)),
            Err(_) => None,
        };
        let Some((asked, length)) = found else {
            let heard = String::from_utf8_lossy(&self.talk.heard).into_owned();
            self.talk.heard.clear();
            self.breaks(&format!("was sent {heard:?}, which is no request"));
            return None;
        };
        if self.talk.heard[length - 2] == b'\r' {
            self.breaks(&format!("was sent {asked:?} with a CR, which is for the framing alone"));
        }
        self.talk.heard.drain(..length);
        Some(asked)
    }

    /// The head of a request has come: may it?
    fn begins(&mut self, asked: Asked) {
        self.begun = Some(asked);
        self.latest = Some(asked.client);
        if asked == RESET {
            return;
        }
        let known = self.ledger.pages().asked.get(&(asked.client, asked.number)).copied();
        match known {
            Some((known, behind)) if known == asked => {
                if asked.is_answered_here() {
                    self.breaks(&format!("was sent {asked:?}, which is answered by the proxy"));
                }
                if behind {
                    self.breaks(&format!("was sent {asked:?}, whose client had said its last"));
                }
            }
            _ => self.breaks(&format!("was sent {asked:?}, which nobody sent")),
        }
        if let Some(pinned) = self.pinned.filter(|pinned| *pinned != asked.client) {
            self.breaks(&format!("was sent {asked:?} while client {pinned} has its trunk"));
        }
        let behind = |owed: &Asked| match owed.binding() {
            Binding::Shared => self.ledger.shared || owed.client == asked.client,
            // Not even its own client.
            Binding::Exclusive(_) => false,
            _ => owed.client == asked.client,
        };
        if let Some((owed, _)) = self.owing.iter().find(|(owed, _)| !behind(owed)) {
            self.breaks(&format!("was sent {asked:?} while it owed a reply to {owed:?}"));
        }
        if matches!(asked.binding(), Binding::Pinned(_) | Binding::Tunnel(_)) {
            self.pinned = Some(asked.client);
        }
        if asked.verb == Verb::Wait && self.hasty && self.world.chance(50) {
            // Its client waits, so this is the moment to answer.
            self.answers_early(asked);
        } else if asked.verb == Verb::Wait {
            self.says(asked.answer(Kind::Hold));
            self.owes(asked);
        }
    }

    fn answers_early(&mut self, asked: Asked) {
        self.world.count("fault: backend answers half a request");
        self.early = true;
        self.ledger.pages().early.insert((asked.client, asked.number));
        self.answers(asked);
    }

    fn owes(&mut self, asked: Asked) {
        self.owing.push_back((asked, self.talk.speech.len()));
    }

    /// Carries it out, and says what is to be said of it.
    fn answers(&mut self, asked: Asked) {
        if asked == RESET {
            (self.value, self.pinned) = (None, None);
            self.world.count("dialect: reset");
            if self.wild && self.world.chance(10) {
                // Not what was to be said: the trunk cannot be trusted.
                self.says(RESET.answer(Kind::Ok));
                self.retired = Some(RESET.client);
            } else {
                self.says(RESET.answer(Kind::Clean));
            }
            return self.owes(asked);
        }
        let most = if asked.is_idempotent() { 2 } else { 1 };
        self.ledger.carries_out(usize::from(asked.client), usize::from(asked.number), most);
        let before = self.value;
        let said = |kind, part, length| Said {
            kind,
            client: asked.client,
            number: asked.number,
            part,
            length,
            whose: before,
        };
        let counted = !matches!(asked.verb, Verb::Cast | Verb::Mute | Verb::Watch | Verb::Tunnel);
        if counted && self.world.chance(15) {
            self.says(said(Kind::Hold, 0, 0));
        }
        match asked.verb {
            Verb::Cast => return self.world.count("dialect: cast"),
            Verb::Mute => {
                self.world.count("dialect: mute");
                self.says(said(Kind::Mute, 0, self.length()));
            }
            Verb::Watch => {
                for part in 1..=asked.times {
                    self.says(said(Kind::Item, part, self.length()));
                }
                self.closes = true;
            }
            Verb::Many => {
                for part in 1..=asked.times {
                    self.says(said(Kind::Ok, part, self.length()));
                }
            }
            Verb::Tunnel => self.tunnels(said(Kind::Switch, 1, 0)),
            Verb::Upgrade if self.world.chance(70) => self.tunnels(said(Kind::Switch, 1, 0)),
            verb => {
                let kind = self.kind(verb);
                self.says(said(kind, 1, self.length()));
                if matches!(kind, Kind::Bye | Kind::Rest) {
                    self.retired = Some(asked.client);
                    // Or else the proxy must see to it.
                    self.closes = kind == Kind::Rest || self.world.chance(50);
                }
                if verb == Verb::Set {
                    self.value = Some(asked.client);
                }
            }
        }
        self.owes(asked);
    }

    /// Nothing is on its way behind an exclusive request, so nothing is lost if the trunk is of no use behind it; unless a
    /// value is.
    fn kind(&self, verb: Verb) -> Kind {
        let exclusive = verb == Verb::Block && (self.pinned.is_none() || self.wild);
        match self.world.roll(10) {
            0..2 if exclusive => Kind::Bye,
            2..4 if exclusive => Kind::Rest,
            4 if exclusive => Kind::End,
            5 if self.wild && self.world.chance(30) => Kind::Bye,
            _ => Kind::Ok,
        }
    }

    fn length(&self) -> usize {
        let most = if self.world.chance(60) { 60 } else { 400 };
        self.world.roll(most)
    }

    fn tunnels(&mut self, switch: Said) {
        self.says(switch);
        self.tunnel = Some(switch.client);
    }

    fn says(&mut self, said: Said) {
        let bodyless = self.begun_is_bodyless(said);
        let speech = &mut self.talk.speech;
        speech.extend_from_slice(said.head().as_bytes());
        // Not where the proxy reads along without looking, or compares.
        let looked_at = !matches!(said.kind, Kind::Item | Kind::Switch | Kind::Clean);
        if looked_at && self.world.chance(20) {
            speech.push(b'\r');
        }
        speech.push(b'\n');
        if !bodyless {
            speech.extend_from_slice(&said.body());
        }
    }

    fn begun_is_bodyless(&self, said: Said) -> bool {
        let asked = self.ledger.pages().asked.get(&(said.client, said.number)).copied();
        asked.is_some_and(|(asked, _)| asked.verb == Verb::Head)
    }

    /// Sends each line of a tunnel back.
    fn echoes(&mut self, client: u8) {
        for line in self.talk.lines() {
            if !line.starts_with(&format!("raw {client} ")) {
                self.breaks(&format!("was sent {line:?} in the tunnel of client {client}"));
            }
            self.talk.speech.extend_from_slice(line.replacen("raw", "back", 1).as_bytes());
        }
    }
}
