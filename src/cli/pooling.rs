//! The flags of `--mode pool` and `--mode mux`, and what they make.

use super::Failure;
use super::flags::Flags;
use trunkline::PoolConfig;
#[cfg(feature = "http")]
use trunkline::framing::Http;
use trunkline::framing::{Eof, Framing, Length, Line, Memcached, Resp};

/// How clients are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each has a backend connection of its own.
    Tunnel,
    /// They share a few, each of which one of them has for a request.
    Pool,
    /// They share a few at the same time.
    Mux,
}

pub(crate) fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "tunnel" => Ok(Mode::Tunnel),
        "pool" => Ok(Mode::Pool),
        "mux" => Ok(Mode::Mux),
        _ => Err(format!("{text:?} is not a mode; use tunnel, pool or mux")),
    }
}

/// A framing, and how its trunks are shared.
pub(crate) type Pooling = (Box<dyn Framing>, PoolConfig);

const NAMES: &str = if cfg!(feature = "http") {
    "line, eof, length, resp, memcached or http"
} else {
    "line, eof, length, resp or memcached"
};

fn wrong(flag: &str, error: &str) -> Failure {
    Failure::Usage(format!("{flag}: {error}"))
}

impl Flags {
    /// What clients share and how, if they share anything.
    pub(crate) fn pooling(&self) -> Result<Option<Pooling>, Failure> {
        if self.mode == Mode::Tunnel {
            return match self.of_a_pool() {
                None => Ok(None),
                Some(flag) => Err(Failure::Usage(format!(
                    "{flag} is for --mode pool and --mode mux; add one of them, or remove {flag}"
                ))),
            };
        }
        let mux = self.mode == Mode::Mux;
        let of_mux =
            [("--credit", self.credit.is_some()), ("--reply-buffer", self.reply_buffer.is_some())];
        if let Some((flag, _)) = of_mux.into_iter().find(|(_, given)| *given && !mux) {
            return Err(Failure::Usage(format!(
                "{flag} is for --mode mux; add that, or remove {flag}"
            )));
        }
        let Some(name) = &self.framing else {
            return Err(Failure::Usage(format!(
                "--mode {} has to know where a request ends; add --framing ({NAMES})",
                if mux { "mux" } else { "pool" }
            )));
        };
        let framing = self.framing(name)?;
        if !framing.counts_replies() && !self.one_reply_per_request {
            return Err(Failure::Usage(format!(
                "--framing {name} cannot know how many replies a request has; if it is always one, add --one-reply-per-request"
            )));
        }
        let config = self.pool_config(if mux { PoolConfig::mux() } else { PoolConfig::default() });
        config.check(&*framing).map_err(Failure::Usage)?;
        Ok(Some((framing, config)))
    }

    fn pool_config(&self, default: PoolConfig) -> PoolConfig {
        let given = self.trunks;
        let (trunks, shared) = match default.shared {
            0 => (given.unwrap_or(default.trunks), 0),
            shared => (default.trunks, given.unwrap_or(shared)),
        };
        PoolConfig {
            trunks,
            shared,
            min_trunks: self.min_trunks.unwrap_or(default.min_trunks),
            max_pinned: self.max_pinned.unwrap_or(default.max_pinned),
            queue_timeout: self.queue_timeout.unwrap_or(default.queue_timeout),
            max_queue: self.max_queue.unwrap_or(default.max_queue),
            reply_timeout: self.reply_timeout.map_or(default.reply_timeout, |limit| limit.0),
            trunk_idle: self.trunk_idle.unwrap_or(default.trunk_idle),
            trunk_lifetime: self.trunk_lifetime.map_or(default.trunk_lifetime, |limit| limit.0),
            credit: self.credit.unwrap_or(default.credit),
            reply_buffer: self.reply_buffer.unwrap_or(default.reply_buffer),
            log_requests: self.log_requests,
        }
    }

    /// A flag that was given and means nothing in a tunnel.
    fn of_a_pool(&self) -> Option<&'static str> {
        let given = [
            ("--framing", self.framing.is_some()),
            ("--max-frame", self.max_frame.is_some()),
            ("--one-reply-per-request", self.one_reply_per_request),
            ("--eof", self.eof.is_some()),
            ("--length-type", self.length_type.is_some()),
            ("--length-offset", self.length_offset.is_some()),
            ("--body-offset", self.body_offset.is_some()),
            ("--trunks", self.trunks.is_some()),
            ("--queue-timeout", self.queue_timeout.is_some()),
            ("--max-queue", self.max_queue.is_some()),
            ("--trunk-idle", self.trunk_idle.is_some()),
            ("--trunk-lifetime", self.trunk_lifetime.is_some()),
            ("--min-trunks", self.min_trunks.is_some()),
            ("--max-pinned", self.max_pinned.is_some()),
            ("--reply-timeout", self.reply_timeout.is_some()),
            ("--log-requests", self.log_requests),
            ("--credit", self.credit.is_some()),
            ("--reply-buffer", self.reply_buffer.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// A setting of another framing would change nothing, in silence.
    fn check_flags_of(&self, name: &str) -> Result<(), Failure> {
        for (flag, given, of) in [
            ("--eof", self.eof.is_some(), "eof"),
            ("--length-type", self.length_type.is_some(), "length"),
            ("--length-offset", self.length_offset.is_some(), "length"),
            ("--body-offset", self.body_offset.is_some(), "length"),
        ] {
            if given && name != of {
                let text =
                    format!("{flag} is for --framing {of}; remove it, or change --framing {name}");
                return Err(Failure::Usage(text));
            }
        }
        Ok(())
    }

    fn framing(&self, name: &str) -> Result<Box<dyn Framing>, Failure> {
        self.check_flags_of(name)?;
        let max_frame = self.max_frame.unwrap_or(Line::default().max_frame);
        match name {
            "line" => Ok(Box::new(Line { max_frame })),
            "eof" => {
                let mark = match &self.eof {
                    Some(text) => Eof::mark(text).map_err(|error| wrong("--eof", &error))?,
                    None => b"\r\n".to_vec(),
                };
                let eof = Eof::new(mark, max_frame).map_err(|error| wrong("--eof", &error))?;
                Ok(Box::new(eof))
            }
            "length" => {
                let kind = self.length_type.unwrap_or_default();
                let (offset, body) =
                    (self.length_offset.unwrap_or(0), self.body_offset.unwrap_or(4));
                let length = Length::new(kind, offset, body, max_frame);
                Ok(Box::new(length.map_err(|error| wrong("--framing length", &error))?))
            }
            "memcached" => {
                let default = Memcached::default();
                let max_frame = self.max_frame.unwrap_or(default.max_frame);
                Ok(Box::new(Memcached { max_frame }))
            }
            "resp" => {
                let default = Resp::default();
                let max_frame = self.max_frame.unwrap_or(default.max_frame);
                Ok(Box::new(Resp { max_frame }))
            }
            #[cfg(feature = "http")]
            "http" => match self.max_frame {
                None => Ok(Box::new(Http::default())),
                Some(_) => Err(Failure::Usage(
                    "--max-frame is not for http, whose bodies have no limit; remove it".into(),
                )),
            },
            _ => Err(Failure::Usage(format!("{name:?} is not a framing; use {NAMES}"))),
        }
    }
}
