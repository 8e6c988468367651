//! Clients that speak the dialect, and what they hold the proxy to.

use super::backends::BABBLE;
use super::talk::Talk;
use super::{LATE, Ledger, leave, meet};
use crate::runtime::Runtime;
use crate::socket::Socket;
use crate::testing::sim::dialect::{self, Asked, Kind, Said, Verb, is_terse};
use crate::testing::sim::world::World;
use std::sync::Arc;

struct Client<'a> {
    world: &'a World,
    ledger: &'a Ledger,
    me: u8,
    talk: Talk,
    asked: Vec<Asked>,
    /// Where each begins and ends in the speech.
    places: Vec<(usize, usize)>,
    /// It asks for one thing at a time.
    waits: bool,
    /// It says little at a time and nothing special, so that much of it comes at once.
    terse: bool,
    /// The body of this one does not end as it should.
    spoiled: Option<usize>,
    /// The oldest request that has not ended.
    due: usize,
    /// How many of its replies have come.
    parts: u32,
    /// It was told to go on.
    goes_on: bool,
    /// The trunk has its value.
    set: bool,
    /// Nothing that follows need be answered.
    closing: bool,
    /// Nothing may follow.
    over: bool,
    /// How many lines have come back, once it is a tunnel.
    tunnel: Option<usize>,
    /// How many it sends.
    raw: usize,
    fin: bool,
    /// Nobody else is there.
    late: bool,
}

pub(super) async fn client(world: &World, ledger: &Ledger, number: usize) {
    let Some(socket) = meet(world, number).await else { return };
    let mut client = Client::new(world, ledger, number);
    client.prepares();
    client.lives(socket).await;
}

/// Comes when all the others have gone long ago. Whatever they have taken must be there again.
pub(super) async fn latecomer(world: &World, ledger: &Ledger, number: usize) {
    world.sleep(LATE).await;
    let Some(socket) = meet(world, number).await else { return };
    let mut client = Client::new(world, ledger, number);
    client.late = true;
    for verb in [Verb::Get, Verb::Set, Verb::See, Verb::Free, Verb::Block] {
        client.wants(verb, false);
    }
    client.lives(socket).await;
}

impl<'a> Client<'a> {
    fn new(world: &'a World, ledger: &'a Ledger, number: usize) -> Client<'a> {
        let me = number as u8;
        Client {
            world,
            ledger,
            me,
            talk: Talk::new(Vec::new()),
            asked: Vec::new(),
            places: Vec::new(),
            waits: world.chance(50),
            terse: is_terse(number),
            spoiled: None,
            due: 0,
            parts: 0,
            goes_on: false,
            set: false,
            closing: false,
            over: false,
            tunnel: None,
            raw: world.roll(6),
            fin: false,
            late: false,
        }
    }
}

const ANY: [Verb; 22] = [
    Verb::Get,
    Verb::Get,
    Verb::Get,
    Verb::Put,
    Verb::Put,
    Verb::Put,
    Verb::Head,
    Verb::Head,
    Verb::Cast,
    Verb::Cast,
    Verb::Mute,
    Verb::Mute,
    Verb::Block,
    Verb::Block,
    Verb::Wait,
    Verb::Wait,
    Verb::Set,
    Verb::See,
    Verb::Many,
    Verb::Ping,
    Verb::Void,
    Verb::Free,
];

const PLAIN: [Verb; 2] = [Verb::Get, Verb::Put];

const PINNED: [Verb; 8] =
    [Verb::Set, Verb::See, Verb::See, Verb::Many, Verb::Get, Verb::Put, Verb::Block, Verb::Free];

const FINAL: [Verb; 7] =
    [Verb::Quit, Verb::Adieu, Verb::What, Verb::Watch, Verb::Tunnel, Verb::Tunnel, Verb::Upgrade];

impl Client<'_> {
    /// Decides what it is going to ask.
    fn prepares(&mut self) {
        let (mut pinned, mut last) = (false, false);
        for _ in 0..self.world.roll(12) {
            let verbs: &[Verb] = match pinned {
                true if self.world.chance(80) => &PINNED,
                false if self.terse && self.world.chance(80) => &PLAIN,
                _ => &ANY,
            };
            let verb = verbs[self.world.roll(verbs.len())];
            pinned = (pinned || matches!(verb, Verb::Set | Verb::See | Verb::Many))
                && verb != Verb::Free;
            self.wants(verb, last);
        }
        if self.world.chance(40) {
            let verb = FINAL[self.world.roll(FINAL.len())];
            let asked = self.wants(verb, last);
            last = asked.is_last();
            for _ in 0..self.world.roll(3) {
                if last {
                    self.wants(Verb::Put, last);
                }
            }
            if verb == Verb::Tunnel && self.world.chance(50) {
                // Without waiting for an answer.
                self.adds_raw();
            }
        } else if self.world.chance(10) {
            self.spoiled = Some(self.asked.len());
            self.wants(Verb::Put, last);
        }
    }

    fn wants(&mut self, verb: Verb, behind: bool) -> Asked {
        let begins = self.talk.speech.len();
        let times =
            if matches!(verb, Verb::Many | Verb::Watch) { 1 + self.world.roll(3) } else { 1 };
        let spoiled = self.spoiled == Some(self.asked.len());
        // The longest do not fit on the wire, so that they can be answered while they are written.
        let length = match self.world.roll(100) {
            _ if self.terse => self.world.roll(9),
            0..60 => self.world.roll(30),
            60..97 => self.world.roll(250),
            _ => self.world.roll(1500),
        };
        let asked = Asked {
            verb,
            client: self.me,
            number: self.asked.len() as u8,
            times: times as u32,
            length: length.max(usize::from(spoiled)),
        };
        self.ledger.pages().asked.insert((self.me, asked.number), (asked, behind));
        let speech = &mut self.talk.speech;
        speech.extend_from_slice(asked.head().as_bytes());
        if self.world.chance(20) {
            speech.push(b'\r');
        }
        speech.push(b'\n');
        speech.extend_from_slice(&asked.body());
        if spoiled && let Some(last) = speech.last_mut() {
            *last = b'!';
        }
        self.places.push((begins, speech.len()));
        self.asked.push(asked);
        asked
    }

    fn adds_raw(&mut self) {
        for line in 0..self.raw {
            self.talk.speech.extend_from_slice(self.line("raw", line).as_bytes());
        }
    }

    fn line(&self, word: &str, number: usize) -> String {
        let filler = "z".repeat((usize::from(self.me) * 7 + number * 31) % 200);
        format!("{word} {} {number} {filler}\n", self.me)
    }

    async fn lives(&mut self, socket: Arc<dyn Socket>) {
        let wild = !self.late && self.world.chance(20);
        let rude = !self.late && self.world.chance(8);
        loop {
            if wild && self.world.chance(5) {
                self.ledger.pages().left.insert(usize::from(self.me));
                return leave(self.world, socket, "client", self.world.chance(50));
            }
            if rude && !self.fin && self.is_in_a_request() && self.world.chance(10) {
                self.world.count("fault: client ends its sending in a request");
                self.ends_its_sending(&*socket);
            }
            let before = self.before();
            let speaks = !self.fin && !self.talk.broken && self.talk.said < before;
            if speaks && self.world.chance(60) {
                self.talk.speak(self.world, &*socket, before).await;
            } else if !self.fin && self.talk.done() && (!self.waits || self.is_answered()) {
                self.ends_its_sending(&*socket);
            } else if let Some(clean) = self.talk.listen(self.world, &*socket).await {
                if clean {
                    self.sees_the_end();
                }
                let end = if clean { "client served" } else { "client cut off" };
                self.world.count(end);
                break;
            }
            self.hears();
        }
        socket.disarm();
    }

    fn ends_its_sending(&mut self, socket: &dyn Socket) {
        self.fin = true;
        self.talk.broken |= socket.shutdown_write().is_err();
    }

    fn is_in_a_request(&self) -> bool {
        self.half_said().is_some()
    }

    /// The request of which it has said a part.
    fn half_said(&self) -> Option<usize> {
        let said = self.talk.said;
        self.places.iter().position(|(begins, ends)| *begins < said && said < *ends)
    }

    /// Where it has to stop for now.
    fn before(&self) -> usize {
        let place = |number: usize| self.places[number];
        let due = self.next_due();
        let mut before = self.talk.speech.len();
        for (number, asked) in self.asked.iter().enumerate().skip(self.due) {
            let (begins, ends) = place(number);
            if asked.verb == Verb::Wait && !(due == Some(number) && self.goes_on) {
                let head = ends - begins - asked.length;
                before = before.min(begins + head);
            }
            if due == Some(number) && self.waits && asked.verb != Verb::Tunnel {
                before = before.min(ends);
            }
        }
        before
    }

    /// The oldest request that has an answer to come.
    fn next_due(&self) -> Option<usize> {
        let answered =
            |number: &usize| !self.asked[*number].is_unanswered() && self.spoiled != Some(*number);
        (self.due..self.asked.len()).find(answered)
    }

    fn is_answered(&self) -> bool {
        self.next_due().is_none()
            && self.spoiled.is_none()
            && self.tunnel.is_none_or(|back| back == self.raw)
    }

    fn breaks(&self, what: &str) {
        self.ledger.breaks(format!("client {} {what}", self.me));
    }

    fn sees_the_end(&self) {
        let half = self.half_said().filter(|_| self.fin).map(|number| (self.me, number as u8));
        let (stopping, cut_short, early) = {
            let pages = self.ledger.pages();
            let early = half.is_some_and(|half| pages.early.contains(&half));
            (pages.stopping, pages.cut_short.contains(&self.me), early)
        };
        let all = self.fin && self.talk.done() && self.is_answered();
        // A client that has nothing on its way is let go when the proxy stops; its next request may cross that.
        let between = self.talk.heard.is_empty() && self.parts == 0;
        // Whatever comes of these, or nothing at all, may be all.
        let raw = self.is_raw();
        let rest = self.talk.heard.starts_with(Kind::Rest.word().as_bytes());
        let ended = (raw && !super::all_behave(self.world))
            || (cut_short && (rest || self.tunnel.is_some()));
        if ended || (between && (all || early || self.closing || stopping)) {
            return;
        }
        self.breaks(&format!(
            "saw a clean end while it awaited {:?}, having said {} of {} bytes, and heard {} bytes and {} parts of it",
            self.next_due().map(|due| self.asked[due]),
            self.talk.said,
            self.talk.speech.len(),
            self.talk.heard.len(),
            self.parts,
        ));
    }

    /// All that comes is its reply.
    fn is_raw(&self) -> bool {
        self.is_at(Verb::Watch) || self.is_at(Verb::Tunnel)
    }

    fn is_at(&self, verb: Verb) -> bool {
        self.next_due().is_some_and(|due| self.asked[due].verb == verb)
    }

    /// Takes in what has come.
    fn hears(&mut self) {
        loop {
            if let Some(back) = self.tunnel {
                for (number, line) in (back..).zip(self.talk.lines()) {
                    if number >= self.raw || line != self.line("back", number) {
                        self.breaks(&format!("got {line:?} through its tunnel"));
                    }
                    self.tunnel = Some(number + 1);
                }
                return;
            }
            if self.is_raw() && self.talk.heard.starts_with(BABBLE) {
                // It has crossed the request, and nobody looks at what comes behind one.
                self.talk.heard.drain(..BABBLE.len());
            }
            let found = match dialect::head(&self.talk.heard) {
                Ok(None) => return,
                Ok(Some((line, length))) => Said::parse(line).map(|said| (said, length)),
                Err(_) => None,
            };
            let Some((said, length)) = found else {
                let heard = String::from_utf8_lossy(&self.talk.heard).into_owned();
                self.talk.heard.clear();
                return self.breaks(&format!("got {heard:?}, which is no reply"));
            };
            let body = if self.is_at(Verb::Head) { Vec::new() } else { said.body() };
            if self.talk.heard.len() < length + body.len() {
                return;
            }
            if self.talk.heard[length - 2] == b'\r' {
                self.breaks(&format!("got {said:?} with a CR, which is for the framing alone"));
            }
            let whole: Vec<u8> = self.talk.heard.drain(..length + body.len()).collect();
            if whole[length..] != body {
                self.breaks(&format!("got another body than that of {said:?}"));
            }
            self.gets(said);
        }
    }

    /// A reply has come: is it the one that is due?
    fn gets(&mut self, said: Said) {
        if self.next_due().is_none() && self.is_told_of_spoiled(said) {
            (self.over, self.closing) = (said.kind != Kind::Hold, true);
            return;
        }
        let Some(due) = self.next_due() else {
            return self.breaks(&format!("got {said:?}, and nothing was due"));
        };
        let asked = self.asked[due];
        self.due = due;
        let named = if is_of_the_proxy(said.kind) { asked.named() } else { asked.number };
        if (said.client, said.number) != (asked.client, named) {
            self.breaks(&format!("got {said:?} instead of the reply to {asked:?}"));
        }
        if self.over {
            self.breaks(&format!("got {said:?} though it had said its last"));
        }
        if self.talk.said <= self.places[due].0 {
            self.breaks(&format!("got {said:?} before it had asked"));
        }
        if !may_answer(asked.verb, said.kind) {
            self.breaks(&format!("got {said:?}, which is no answer to {asked:?}"));
        }
        if said.kind == Kind::Hold {
            self.goes_on = true;
            return;
        }
        let expected = if is_of_the_proxy(said.kind) { 0 } else { self.parts + 1 };
        if said.part != expected {
            self.breaks(&format!("got {said:?} instead of part {expected}"));
        }
        let value = self.set.then_some(self.me);
        if !is_of_the_proxy(said.kind) && said.whose != value {
            self.breaks(&format!("got {said:?} from a trunk that should have {value:?}"));
        }
        // Who breaks off in the middle of a request takes the trunk with him, and what else he awaits of it.
        let breaks_off = self.spoiled.is_some() || (self.fin && self.is_in_a_request());
        if said.kind == Kind::Lost && super::all_behave(self.world) && !breaks_off {
            self.breaks(&format!("got {said:?} though no backend leaves"));
        }
        let alone = said.kind == Kind::Full && self.late;
        if alone || (said.kind == Kind::Tired && self.ledger.pages().patient) {
            self.breaks(&format!("got {said:?} though a trunk must be free"));
        }
        self.parts += 1;
        let times = if matches!(asked.verb, Verb::Many | Verb::Watch) { asked.times } else { 1 };
        if !is_of_the_proxy(said.kind) && self.parts < times {
            return;
        }
        self.ends(asked, said);
    }

    /// What does not end as it should may have lost its trunk before, or have found none; or was answered before that.
    fn is_told_of_spoiled(&self, said: Said) -> bool {
        let lost = said.kind == Kind::Lost || is_of_the_pool(said.kind);
        let early = self.ledger.pages().early.contains(&(self.me, said.number));
        let spoiled = self.spoiled == Some(usize::from(said.number)) && said.client == self.me;
        spoiled && (lost || early) && !self.over
    }

    /// A request has had all that it is to have.
    fn ends(&mut self, asked: Asked, said: Said) {
        self.world.count(&format!("dialect: {} {}", asked.verb.word(), said.kind.word()));
        self.due += 1;
        (self.parts, self.goes_on) = (0, false);
        match (asked.verb, said.kind) {
            (Verb::Set, Kind::Ok) => self.set = true,
            (Verb::Free, _) => self.set = false,
            _ => {}
        }
        let half = is_of_the_proxy(said.kind) && asked.comes_in_pieces();
        let ends = matches!(said.kind, Kind::End | Kind::Rest) || asked.verb == Verb::Watch;
        // What follows a pin that could not be had would mean something else without it.
        let binds =
            matches!(asked.verb, Verb::Set | Verb::See | Verb::Many | Verb::Watch | Verb::Tunnel);
        let refused = is_of_the_proxy(said.kind) && said.kind != Kind::Lost && binds;
        self.closing |= half || ends || refused || asked.is_last();
        self.over |= asked.is_last();
        if said.kind == Kind::Switch {
            self.tunnel = Some(0);
            let eager = self.talk.speech.len() > self.places[usize::from(asked.number)].1;
            match self.fin {
                // It has ended its sending without waiting for that.
                true if !eager => self.raw = 0,
                _ if !eager => self.adds_raw(),
                _ => {}
            }
        }
    }
}

/// It comes from the framing, not from a backend.
fn is_of_the_proxy(kind: Kind) -> bool {
    matches!(kind, Kind::Pong | Kind::Adieu | Kind::Bad | Kind::Lost) || is_of_the_pool(kind)
}

/// There was no trunk.
fn is_of_the_pool(kind: Kind) -> bool {
    matches!(kind, Kind::Unserved | Kind::Full | Kind::Tired)
}

fn may_answer(verb: Verb, kind: Kind) -> bool {
    match (verb, kind) {
        (Verb::Ping, kind) => kind == Kind::Pong,
        (Verb::Adieu, kind) => kind == Kind::Adieu,
        (Verb::What, kind) => kind == Kind::Bad,
        (_, Kind::Lost) => true,
        (_, kind) if is_of_the_pool(kind) => true,
        (Verb::Watch, kind) => kind == Kind::Item,
        (Verb::Tunnel, kind) => kind == Kind::Switch,
        (Verb::Upgrade, Kind::Switch) | (Verb::Block, Kind::End | Kind::Rest) => true,
        (_, kind) => matches!(kind, Kind::Ok | Kind::Bye | Kind::Hold),
    }
}
